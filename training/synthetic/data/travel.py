"""English travel: flights, hotels, cars."""

PACK = """
$ product: Lisbon package; city break; beach resort; ski weekend; island tour; safari trip; cruise; rail pass; spa \
hotel; \
hiking week; family package
$ order: booking {order_no}; reservation {order_no}; {order_no}; booking ref {order_no}
$ place: Lisbon; Rome; Athens; Dubai; Oslo; Bali; Prague; Malta; Crete; Nice; Seville; Marrakesh; Reykjavik
$ flight: flight {LL}{ddd}; {LL}{dddd}; the {7-11}am flight; the flight to {place}; my flight
$ hotel: Hotel Miramar; the Grand Plaza; Casa Azul; the Harbour Inn; Villa Sol; the Palm Resort; Hotel Alpina
@ cancel_booking | Booking | Cancel a booking | change_dates
= We have cancelled your booking under its fare rules; the confirmation shows the amount that goes back to you.
= Flexible fares can be cancelled free of charge until 24 hours before the start.
! cancel [booking|reservation|trip|{order}]
! cancellation [request|of {order}]
- [I want|I need|we have] to cancel [my|our|the] [booking|trip|{product}|stay at {hotel}][ {order}| to {place}|]
- [how much|what] [do I pay|does it cost|is the fee] to cancel [{order}|the trip to {place}|our {product}]
- [we can't|I cannot] travel [to {place}|on {future}] [any more|because of illness|for family reasons], please cancel \
[everything|{order}]
- [can I|is it possible to] cancel [only the hotel|one of the travellers|without a fee|{order}]
- [the|your] cancel [button|page] [is greyed out|gives an error] for {order}
+ [it was|we booked] [the flexible|a refundable] [rate|fare]
? [please|can you] confirm [the cancellation|in writing]?
? how much [will I|do we] get back?
@ change_dates | Booking | Change dates | cancel_booking
= Dates can be changed for the difference in price plus the fee of the fare; I have sent you an offer.
= Please answer within 24 hours, as prices move.
! [change|move|rebook] [dates|booking|trip]
! [different|new] [dates|flight]
- [I'd like|we need|I want] to [change|move|postpone] [our|my] [trip|booking|{product}|stay] to [{future}|a week \
later|next month]
- [can I|is it possible to] [rebook|change] {flight} to [{future}|a later one|an earlier date|another day]
- [what|how much] [is the fee|does it cost] to change [the dates|{order}|{flight}]
- [I booked|booked] the wrong [date|month|day] [by mistake|for {place}], it [should be|has to be] {future}
- [we want|can we] to [stay longer|add two nights|shorten our stay] at {hotel}
+ [we are|I am] flexible [by a day or two|except {day}]
? [can you|please] [check availability|tell me the price|move it]?
@ flight_cancelled | Flights | Flight cancelled by airline | flight_delay
= We are sorry that the airline has cancelled. You may choose a new flight without charge or the full price back.
= Tell us your choice within seven days; hotels that belong to the booking are moved along.
! [flight|{flight}] cancelled
! airline cancelled [our|my] flight
- [the airline|they] [cancelled|has cancelled] [{flight}|our flight|my return flight] [to {place}|on {date}|]
- [I got|we received] [a mail|a text] that {flight} [is cancelled|will not operate|was dropped from the schedule]
- [our|my] [return flight|flight home] was cancelled and [we are stranded|we're stuck] in {place}
- [because of|due to] [the strike|bad weather] {flight} [was cancelled|doesn't fly], [what are our options|we need a \
new one]
- [you|they] [rebooked|moved] us to [a flight|{flight}] [{2-3} days later|with two stops] after the cancellation
+ [the|our] hotel in {place} [is paid|can't be moved]
? [can you|please] [rebook us|refund everything|find another flight]?
? what are [my rights|our options]?
@ flight_delay | Flights | Delay and compensation | flight_cancelled
= Please send boarding passes and the delay in hours; we hand the claim to the airline.
= For three hours or more up to 600 euros are due, depending on the distance.
! [delay|compensation] [claim|{flight}]
! [missed connection|delayed flight]
- {flight} was [delayed|late] [by|] {3-12} hours [and we want compensation|on {date}|]
- [I want|we'd like] to claim [compensation|money] for the delay of {flight}
- [we missed|I missed] [the|our] [connection|connecting flight|train|transfer] [in {place}|because {flight} was late]
- [the airline|they] [refuses|won't] [to pay|pay] compensation for the {3-9} hour delay
- [due to|because of] the delay [we had to pay|I spent] {amount} on [a hotel|food|a taxi]
+ [receipts|boarding passes] [are attached|can be sent]
? [how much|what] [are we|am I] entitled to?
? [can you|please] [claim it for us|send the form]?
@ baggage | Flights | Baggage allowance | lost_baggage
= Your fare's allowance is shown in the booking; bags can be added online until four hours before departure.
= Sports equipment has to be announced to the airline.
! [baggage|luggage|hand luggage] [question|allowance]
! add [a bag|luggage]
- [how much|what] [luggage|baggage] [is included|can I take|are we allowed] [on {flight}|in {order}|with this fare]
- [I want|can I|how do I] [add|book|pay for] [a suitcase|an extra bag|hand luggage|a bike] [to|for] [{order}|{flight}]
- [is|does] [a backpack|a {40-56} cm bag|a pushchair|a guitar] [allowed as hand luggage|count as a bag]
- [we paid|I paid] for [two|{2-4}] bags but [the boarding pass|{order}] [shows none|shows only one]
- [at the airport|they] [charged|made us pay] {amount} for [luggage|a bag] [that was included|]
? [can you|please] [add it|confirm the allowance|refund the fee]?
@ lost_baggage | Flights | Lost or damaged baggage | baggage
= Please report it at the airline's desk and send us the report number; most bags turn up within three days.
= Keep receipts for things you must buy in the meantime.
! [lost|missing|damaged] [suitcase|baggage|luggage]
! [baggage|suitcase] did not arrive
- [my|our] [suitcase|luggage|bag] [did not arrive|is lost|never came out|is missing] [in {place}|after {flight}|]
- [my|the] suitcase [arrived|came back] [broken|damaged|with a wheel missing|torn] [from {flight}|]
- [the airline|nobody] [can't find|knows where] [our|my] [bags|luggage] [is|are|since {day}]
- [still no|no] [trace|news] of my [bag|suitcase] [lost on {date}|after {days}]
- [I had|we had] to buy [clothes|toiletries] for {amount} [since|because] [my bag|the luggage] [is lost|didn't come]
+ report number {LL}{LL}{ddddd}
? who [pays|is responsible]?
? [can you|please] [trace it|chase the airline]?
@ checkin | Flights | Online check-in and seats
= Check-in opens 24 hours before departure on the airline's own site with the six-letter code in your booking.
= Seats can be chosen there too, some for a fee.
! [check-in|boarding pass|seat] [problem|question]
! [can't check in|seats together]
- [I can't|we cannot|unable to] check in [online |][for {flight}|to {place}|, it says booking not found]
- [where|how] [do I|can we] [check in|get our boarding passes|download the boarding pass] [for {flight}|]
- [we want|can we get] [seats together|an aisle seat|extra legroom|a window seat] on {flight}
- [we were|the system] [seated apart|gave us seats] [from our kids|in different rows] on {flight}
- [the|my] [airline code|booking code] [does not work|is unknown] [on their site|at check-in]
? [can you|please] [check us in|send the passes|fix the seats]?
@ name_correction | Booking | Correct a traveller's name
= Up to three letters can be corrected free of charge; I have asked the airline and will confirm by mail.
= A change to another person is not possible on this fare.
! [name|spelling] [correction|mistake|change]
! wrong name on [ticket|booking]
- [the|my] name [on|in] [the ticket|{order}|the booking] is [misspelt|spelled wrong|not as in my passport]
- [I forgot|there's no] [the|my] [middle name|second surname] on [the ticket|{flight}]
- [it says|the ticket reads] {first} [instead of|but should be] {first} {last}
- [can I|we need to] [change the traveller|put another person on the booking|swap {first} for {first}]
- [I booked|booked] [with|under] my maiden name [but|and] my passport [says|shows] {last}
? will [they|the airline] let me [board|fly]?
? [please|can you] correct [it|the name] before {future}?
@ visa | Documents | Visa and passport
= Entry rules are listed by nationality on the page of the foreign ministry; please check six weeks ahead.
= We may not advise on single cases, sorry.
! [visa|passport|entry] [requirements|question]
! documents for {place}
- do [I|we] need a visa [for|to enter] {place} [with a British passport|as a US citizen|]
- [my|our son's] passport [expires|runs out] [in {2-5} months|on {future}], can [I|we] [still travel|enter] [to \
{place}|]
- [which|what] [documents|papers|vaccinations] [are needed|do kids need] for {place}
- [can you|please] [send|write] [an invitation letter|a confirmation|a booking proof] for [my|the] visa [application|]
- [is|do they accept] an ID card [enough|] [for|in] {place}
? where [do I|can we] apply?
@ hotel_problem | Hotel | Problem at the hotel | hotel_request
= We are sorry about your stay. Please tell the front desk first, so that it can be put right on the spot.
= We have contacted the hotel and will get back to you with an offer.
! [problem|complaint] [at|about] {hotel}
! [dirty|noisy|wrong] room
- [our|the] room at {hotel} [is dirty|smells of mould|is next to a building site|has no hot water|is full of ants]
- {hotel} [has no|can't find our] [reservation|booking] [for us|{order}]
- {hotel} [is overbooked|sent us away|gave us another room type]
- [the|our] room is [not what we booked|without a sea view|much smaller than in the pictures]
- [the pool|the restaurant|air conditioning|wifi] at {hotel} [is closed|does not work|is broken]
+ [we are|we're] [at the desk now|here until {future}]
+ reception [does nothing|refuses to help|says call you]
? [can you|please] [move us|find another hotel|get us a refund]?
@ hotel_request | Hotel | Special requests for the stay | hotel_problem
= I have passed your wish to the hotel; it will do its best but cannot guarantee it.
= Cots and late arrival are noted in your booking now.
! [request|question] for {hotel}
! [early check-in|late arrival|cot|parking]
- [can we|is it possible to] [check in early|check in at {time}|leave our bags|check out late] at {hotel}
- [please|could you] [ask|tell] {hotel} [for a cot|that we arrive at midnight|for a quiet room|to add an extra bed]
- [does|has] {hotel} [have|got] [parking|a pool|a gym|a lift|vegan breakfast]
- [are|is] [pets|our dog|breakfast] [allowed|included] at {hotel}
- [we'd like|can we have] [adjoining rooms|a sea view|twin beds] [at {hotel}|for {order}]
? [can you|please] confirm [this|it] with the hotel?
@ transfer | Hotel | Airport transfer
= Your driver waits in the arrivals hall with your name; the number for delays is on the voucher.
= Transfers can be booked until 24 hours before landing.
! [airport|] transfer [question|missing|{place}]
! [driver|pickup|shuttle] [not there|time]
- [the|our] [driver|transfer|shuttle] [did not show up|was not there|is late] [in {place}|at the airport|]
- [where|how] [do we|will I] find the [driver|shuttle|transfer] [in {place}|on arrival|]
- [can I|we'd like to] [book|add] [a transfer|an airport pickup] [to {hotel}|in {place}|for {2-7} people]
- [our|the] flight [time changed|lands at {time}], does the [driver|shuttle] know
- [we had to|I] [take|took] a taxi for {amount} because the [transfer|driver] [never came|left]
? [please|can you] [call the driver|confirm the pickup|refund the transfer]?
@ car_rental | Cars | Rental car
= Please have a credit card in the driver's name with you; the deposit is released after the return.
= Questions about damage are settled by the rental firm, we help with the papers.
! [rental|hire] car [question|deposit|damage]
! car in {place}
- [the|our] rental [car|firm] [in {place}|] [was not available|charged {amount} extra|refused my card|blames us for a \
scratch]
- [is|what] [insurance|a second driver|the mileage|fuel] [included|covered] [with|in] the [rental|hire] car
- [how much|when] [is the deposit|do I get the deposit back] for the [rental|hire] car [in {place}|]
- [can I|we want to] [drop off|return] the car [in {place}|at night|a day later]
- [do I|does {first}] need an international licence [for|to drive] [the rental|in {place}]
? [can you|please] [sort it with the firm|extend it|send the voucher]?
@ voucher | Payment | Travel vouchers and miles | promo_code
= Vouchers are redeemed on the payment page and can be combined; the rest stays valid for three years.
= Missing points are added when you send the booking number.
! [travel voucher|credit|points] [question|missing]
! [redeem|use] [voucher|miles]
- [how do I|I can't] [use|redeem] [my|the] [travel voucher|credit|points|miles] [for {place}|on {order}|]
- [my|the] [points|miles] for [{flight}|{order}|the trip to {place}] [are missing|were not credited]
- [I got|we got] a travel voucher [instead of a refund|for the cancelled trip] and [it has expired|want cash instead]
- [how long|until when] is [my|the] travel [voucher|credit] valid
- [can I|may I] [transfer|give] my [points|travel credit] to [my wife|{first}]
? [can you|please] [extend it|add them|pay it out]?
@ confirmation | Booking | Booking confirmation missing
= Your booking is confirmed; I have sent the documents again to the address on file.
= You find the tickets at any time under "My trips".
! [no|missing] [confirmation|tickets|voucher]
! is my booking confirmed
- [I|we] [booked|paid for] [{product}|{order}|{hotel}] [on {date}|] but [got no confirmation|received nothing|have no \
tickets]
- is [my|our] [booking|{order}|{product}] [confirmed|really booked|paid]
- [where|when] [are|do we get] [our|the] [tickets|travel documents|vouchers] for {place}
- [the|your] page [crashed|froze] while booking [{product}|{hotel}] and [I don't know if it worked|money was taken]
- [I can't|cannot] find [my|our] [booking|trip|{order}] [in the app|under my trips]
? [please|can you] [resend it|confirm|check]?
@ refund_trip | Payment | Refund for a trip | cancel_booking
= Refunds take up to ten working days after the airline or hotel has released the money.
= I have asked for the state of yours and will write as soon as I know.
! [waiting for|missing|status of] refund
! refund [for {order}|{place}]
- [we are|I'm] still waiting for [the|our] refund [for|of] [{order}|the trip to {place}|{amount}]
- [you|the airline] promised [a refund|our money back] [within {10-30} days|on {date}] and [nothing came|it's not here]
- [where is|when do we get] [the|our] refund [for {hotel}|for the cancelled {flight}|]
- [only|you refunded only] {amount} [was refunded|of {amount}] for [{order}|our {product}]
- [the|my] card [the refund goes to|used for {order}] [is closed|was replaced]
? [when|how] will it be paid?
? [please|can you] check with the [airline|hotel|bank]?
"""
