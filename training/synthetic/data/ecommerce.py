"""English e-commerce: parcels, returns, products."""

PACK = """
$ product: trail shoes; rain jacket; desk lamp; coffee grinder; wool blanket; yoga mat; backpack; air fryer; headset; \
bookshelf; winter boots; kids bike; face cream; garden chairs; knife set; bedding set; hoodie; running tights; tent
$ order: {order_no}; order {order_no}; order no {order_no}; #{order_no}
$ carrier: DHL; UPS; FedEx; the courier; Royal Mail; the carrier; GLS; USPS
$ colour: black; navy; green; grey; red; beige; white; olive
$ size: S; M; L; XL; {36-46}; {6-12}
@ late_parcel | Shipping | Where is my parcel | not_received
= Thank you for waiting. Parcels take three to five working days, and tracking can stand still for a day or two.
= If there is no news two days after the promised date, we start a search with the carrier and keep you posted.
! where is my [order|parcel|package|delivery]
! [late|delayed|missing] [delivery|parcel|order]
- [where is|where's] [my|the] [parcel|package|order|delivery|{product}]? [ordered|I ordered] [it |][on {date}|{days} \
ago]
- [my|the] [parcel|package|order|{product}] [still hasn't|has not|hasn't] [arrived|turned up|been delivered|come][ \
yet| so far|]
- [tracking|the tracking page|the tracking link] [has not moved|is stuck|shows nothing|hasn't updated] [for \
{days}|since {day}]
- [I have been|I'm still] waiting for [my|the] [parcel|order|{product}] [for {days}|since {date}]
- [delivery|it] was [promised|due|supposed to come] [on {day}|by {date}] and [nothing came|it's still not here]
- what is the [status|delivery date] of [{order}|my order]
+ [{carrier}|tracking] says [in transit|label created|at the depot in {city}|out for delivery] [for {days}|since {day}|]
+ [I need|it is needed] [it|] for [a birthday|a trip|{day}|the weekend]
? [can you|could you|please] [check|find out|tell me] [where it is|when it arrives|what the hold-up is]?
? when will it [arrive|be delivered|get here]?
@ not_received | Shipping | Marked delivered, not received | late_parcel
= Please look with neighbours and in safe places first; scans sometimes happen a day early.
= If it has not surfaced by tomorrow, tell us and we open a claim with the carrier and send a replacement or refund.
! [marked|shown] as delivered but [not received|nothing here]
! [lost|stolen|missing] [parcel|package]
- [tracking|{carrier}|the app] says [delivered|it was delivered|left at the door] [on {day}|on {date}|] but [I got \
nothing|there is nothing here]
- [my|the] [parcel|package|{product}] [was marked|is shown] as delivered [but I never received it|and nobody got it]
- [I never|never] [got|received] [my|the] [parcel|package|{product}|order]
- [someone|I think somebody] [stole|took] [my|the] [parcel|package] from [the porch|my door|the hallway]
- the [delivery photo|signature] [is not my door|shows another house|is not mine]
- [my|the] [parcel|package|order] [is|got|seems] lost
+ [I asked|asked] [all|the] neighbours[ and nobody has it|, no luck|]
+ [I was|we were] home [all day|the whole time]
? [please|can you] [resend it|send another one|open a claim|refund me]?
? what happens now, [do I get|will you send] a new one?
@ return_item | Returns | How to return an item | exchange_size
= You can return unused items within 30 days. Print the label from your order page and drop the parcel at any shop.
= Your refund is paid to the original method once the warehouse has looked at the items.
! [return|send back] [my order|an item|request]
! [return label|returns]
- [I want|I would like|I'd like] to [return|send back] [the|my] [{product}|order|items]
- [how do I|how can I|what's the way to] [return|send back] [something|the {product}|{order}|an item]
- [I need|please send me|where is] [a|the] return [label|form|slip][ for {order}|]
- [the|my] {product} [is not|isn't] [what I expected|as described|my taste] and [I'd like to send it back|has to go \
back]
- is it [too late|still possible] to return [the {product}|an order from {date}|an opened item]
- there was no return label in the [box|parcel]
+ it is [unused|still in the box|unopened|only tried on once]
+ [the colour|the {colour}] looks [different|cheap|off] [in real life|compared to the picture]
? [can you|please] [send me a label|tell me the address|explain how]?
? do I have to pay for the return?
@ exchange_size | Returns | Exchange for another size | return_item
= We are happy to swap sizes. Choose "Exchange" in your order page and the new size is reserved for ten days.
= The new parcel leaves as soon as the old one is scanned at the drop-off point.
! [exchange|swap|wrong size]
! [different|other|bigger|smaller] [size|colour]
- [the|my] {product} [is|are] [too small|too big|too tight|too large], [I need|can I get] [size|a] {size}
- [I want|I would like|can I] to [exchange|swap] [the|my] {product} for [size {size}|a {size}|the {colour} \
one|another colour]
- [ordered|I bought] [size|a] {size} but [need|should have taken] {size}
- [the|your] size [chart|guide] is [wrong|misleading], the {product} [does not|don't] fit
- [instead of|not] {colour} [I'd rather have|I would like] {colour}
+ [it is|they are] [unworn|with tags|as new]
+ [is {size}|do you still have {size}] in stock
? [can you|please] [reserve|hold|send] [the other size|a {size}|the new one] [first|]?
? how does [an exchange|swapping] work?
@ refund_status | Returns | Where is my refund | return_item
= We have received your return. Refunds are issued within five working days and take up to three more at your bank.
= You get a mail with the amount as soon as it is on its way.
! [where is my|missing|waiting for] refund
! refund [not received|status|delay]
- [I returned|I sent back|returned] the {product} [{days} ago|on {date}] and [still no refund|have not got my money]
- [where is|when do I get] my [refund|money][ for {order}| back|]
- [you|your warehouse] [received|got] my return [on {date}|{days} ago] but [nothing was refunded|I see no money]
- [I'm still|still] waiting for [the|my] refund of {amount}
- the refund [was only|is] {amount} [instead of|but should be] {amount}
- [it says|the status is] [refunded|refund issued] but [nothing is|there's nothing] on my [account|card|statement]
+ [I have|I kept] the [drop-off receipt|proof of posting]
+ [the card|my old card] [I paid with|used] [has expired|was replaced]
? when [will|can] [I see|you send] [the money|it]?
? [please|can you] [refund me|check the status|pay it out] [today|]?
@ damaged | Quality | Arrived damaged | faulty
= We are very sorry that it arrived in this state. Please send a photo of the item and of the box.
= You may choose between a replacement and a refund; the damaged item need not come back.
! [damaged|broken] [on arrival|item|delivery|{product}]
! [arrived|came] [broken|damaged]
- [the|my] {product} [arrived|came|was delivered] [broken|damaged|smashed|cracked|scratched|with a dent]
- [the|my] [box|parcel|package] was [crushed|wet|torn open|badly damaged] [and the {product} is broken|on arrival|]
- [one|part|the leg|the lid] of the {product} [is|was] [broken|cracked|bent] [when I opened the box|out of the box]
- [I opened|opened] the [parcel|box] and [found|there was] [broken glass|a big scratch|a crack]
- {carrier} [threw|dropped|left] the parcel [over the fence|in the rain] and [it is damaged|the {product} is ruined]
+ [it was|the item was] [barely|not] [wrapped|padded]
+ [see|I took] [photos|pictures] [attached|of the box|]
? [please|can you] [send a replacement|send a new one|refund it|give me a discount]?
? do I [have to|need to] send the broken one back?
@ faulty | Quality | Faulty after use, warranty | damaged
= The {product} has a two-year warranty. Please describe the fault and add the order number and a short video if you \
can.
= Our workshop decides within a week about repair or replacement.
! [warranty|guarantee] [claim|question|case]
! [stopped working|defective|faulty]
- [the|my] {product} [stopped working|broke|died|fell apart|doesn't work any more] [after {days}|after {2-11} months]
- [I want|I'd like] to [make|use|claim] [a warranty claim|the warranty|the guarantee] [for|on] the {product}
- the [zip|seam|motor|switch|sole|handle|strap] of [the|my] {product} [is broken|came off|failed] [already|]
- [is|does] the {product} [still under warranty|have a guarantee], [it makes a strange noise|it won't turn on]
- [the|my] {product} [is defective|has a defect|turns off by itself|leaks]
+ bought [on {date}|{2-20} months ago], used [normally|twice|hardly]
+ [the quality|this] is not what I expect for {amount}
? [can it be|will it be] [repaired|replaced|fixed]?
? how do I [claim|get it repaired|start a repair]?
@ wrong_item | Quality | Wrong item received | missing_item
= Sorry for the mix-up in our warehouse. The right item leaves today, and a label for the other one is attached.
= There is no cost for you.
! [wrong|incorrect] [item|product|order] [received|sent|]
! [not what I ordered|got something else]
- [I received|you sent|I got] [the wrong item|the wrong {product}|something else|a different product][ in {order}|]
- [I ordered|ordered] [the|] {product} [and|but] got [a {colour} one|somebody else's order|something completely \
different]
- [this is|that's] not what I ordered, [the box has|I got] [the wrong colour|someone else's things|another model]
- [the parcel|the box] contains [another customer's order|the wrong model|{2-4} of the wrong thing]
- [instead of|where is] {colour} [you sent|I got] {colour}
+ [the|my] [invoice|packing slip] [is right|shows the right one], the [content|product] is not
+ [the label|barcode] says {ddddddd}
? [please|can you] [send the right one|exchange it|fix the mistake]?
? what do I do with the [wrong|other] one?
@ missing_item | Quality | Item missing from parcel | wrong_item
= Large orders sometimes travel in several parcels; your order page shows each of them.
= If yours was a single parcel, we will send the missing part free of charge today.
! [missing|incomplete] [item|parts|order]
! [order incomplete|part missing]
- [the|my] [order|parcel|{order}] [is|was] [incomplete|missing something], [the {product} is not there|one item is \
missing]
- [one|two|{2-4}] [item|items|pieces] [missing|is missing|were not in the box]
- [only|I only] [received|got] [part|half|{2-3} of {4-6}] of my order
- [the|my] {product} came without [screws|the manual|the charger|the cable|a lid]
- [paid|I paid] for {2-5} but [there was|I got] only [one|{1-2}] in the [box|parcel]
+ [the box|the parcel] [was sealed|looked fine|was the only one]
+ the [packing slip|invoice] lists [everything|all {2-6}]
? [please|can you] [send the rest|send the missing one|refund the missing part]?
? [is|does] the rest [coming separately|come later]?
@ cancel_order | Orders | Cancel my order | change_order
= We could stop the order before it was packed and have cancelled it; the amount is released within three days.
= If a parcel reaches you all the same, please refuse it.
! cancel [my|the|] [order|purchase]
! [cancellation|please cancel]
- [please|I want to|I'd like to|I need to] cancel [my order|{order}|the order for the {product}|the purchase]
- [I ordered|ordered] [by mistake|twice by accident|the wrong thing] [and want to cancel|, please stop it]
- [can I|is it possible to] [still |][cancel|stop] [my order|{order}] [before it ships|from {date}|]
- [I changed|changed] my mind [about the {product}|], [don't send it|please do not ship it]
- [there is|I see] no cancel button [for|on] [{order}|my order]
+ [I found|found] it [cheaper elsewhere|in a shop here]
+ [it has not|it hasn't] [shipped|been sent] yet
? [please|can you] confirm the cancellation?
? will I get [all my money|{amount}] back?
@ change_order | Orders | Change address or items | cancel_order
= We have changed the order as you asked; the new confirmation is on its way to you.
= Once a parcel is packed, only the carrier can redirect it, with the link in the tracking mail.
! [change|wrong] [delivery address|address]
! [change|edit|add to] my order
- [I gave|I entered|put in] the wrong [address|house number|postcode|street] [for|in|on] [{order}|my order]
- [can you|please] [change|update] the [delivery address|shipping address] [to {street}, {city}|of {order}]
- [I want|I'd like|can I] to [add|change|remove] [the {product}|something|an item] [to|in|from] [my order|{order}]
- [we moved|I am moving], [the parcel|{order}] [must|has to|should] go to {street}
- [can I|I need to] [edit|change|modify] [my order|{order}] [I placed today|before it ships|]
+ it [should be|must say] {street}
+ ordered [{10-50} minutes ago|just now|last night]
? is [that|it] still possible?
? [please|can you] [change it|combine both orders|update it] before it [ships|goes out]?
@ stock | Products | Back in stock
= The {product} is on its way to our warehouse. Press "Notify me" on its page and you will be the first to know.
= We can't reserve items, sorry.
! [stock|availability] [question|of the {product}]
! [sold out|back in stock]
- when [will|is] the {product} [be back in stock|be available again|coming back][ in {colour}| in size {size}|]
- [the|your] {product} [is|are] [sold out|out of stock|unavailable] [in {size}|in {colour}|everywhere|]
- [do you|will you] [have|get] the {product} [again|in {colour}|in size {size}|in your {city} shop]
- [is the {product}|can you tell me if the {product} is] [discontinued|gone for good|coming again]
- [I pressed|signed up for] notify me [for the {product}|{days} ago] and [heard nothing|never got a mail]
+ [I have been|been] looking for it [for {days}|everywhere]
? [can you|please] [reserve one|let me know|put one aside] [for me|when it's back]?
? any date?
@ product_info | Products | Product details
= Good question! Measurements, material and care are under "Details" on the product page.
= For the {product} in particular our product team has added the answer there today.
! question about [the {product}|a product]
! [product|size|material] [question|information]
- [what|which] [material|size|weight] is the {product} [made of|exactly|in {size}]
- [is|are] the {product} [waterproof|vegan|dishwasher safe|suitable for kids|machine washable]
- [does|do] the {product} [fit|work with|come with] [a tall person|a {device}|instructions|batteries|a bag]
- [how|what] [heavy|long|wide|big] [is|are] the {product} [when folded|with the box|]
- what is the difference between the {product} [and the {colour} one|old and new|and the pro version]
+ [the page|your website] [does not say|says two different things]
? [can you|please] [tell me|ask the maker|send the data sheet]?
? which one [would you recommend|should I take]?
@ price_match | Offers | Price dropped after purchase | promo_code
= If our own price falls within 14 days we refund the difference as a voucher; it is in your account now.
= We can't match the prices of other shops.
! [price|cheaper] [match|drop|difference]
! [price drop|sale] after [my order|purchase]
- [I bought|bought] the {product} [{days} ago|on {date}] and now [it is|it's] [{amount} cheaper|on sale|reduced]
- [do you|can you] [price match|match the price], [another shop|a shop in {city}] [sells|has] the {product} for {amount}
- the price [went down|dropped] [right after|a day after|since] [my order|I ordered]
- [can I get|please refund] the [difference|price difference] [of {amount}|for {order}]
- the [shelf|advertised|banner] price was {amount} but [checkout shows|I paid] {amount}
? [would you|can you] [refund|credit] the difference?
? [is there|do you have] a price guarantee?
@ shipping_cost | Shipping | Shipping costs and countries
= Standard delivery costs 4.90 and is free above 50. The list of countries is at the foot of the checkout.
= Customs duties outside the union are paid by the recipient.
! [shipping|delivery] [costs|options|abroad]
! do you [ship|deliver] to [Canada|Norway|Ireland|Japan]
- do you [ship|deliver|send] to [Canada|Norway|Ireland|Japan|Switzerland|a PO box|Alaska][ and what does it cost|]
- [how much|what] [is|are] [shipping|delivery|postage] [to {city}|for the {product}|abroad|for two parcels]
- [do I|will I] [have to|] pay [customs|import duty|taxes] [on|for] [an order|the {product}]
- [why|how come] [is|was] [shipping|delivery] {amount} [when it should be free|for one {product}]
- [is there|do you offer] [express|next day|Saturday|free] delivery [to {city}|for the {product}|]
? [can you|please] [tell me the price|give me a quote]?
? from [what|which] amount is delivery free?
@ missed_delivery | Shipping | Missed delivery or pick-up point
= The carrier tries twice and then keeps the parcel for seven days at the shop named on the card.
= With the tracking number you can also choose another day or place on the carrier's page.
! [missed|failed] [delivery|attempt]
! [pick-up point|redelivery|parcel shop]
- [I missed|missed] [the|my] delivery [on {day}|today|], [can it come again|where is it now]
- {carrier} [says nobody was home|left a card|claims a failed attempt] [but I was in|on {day}|]
- [can you|please] [arrange|book] [a redelivery|delivery on {day}|another attempt]
- [the|my] parcel [was sent|went] to [a pick-up point|a locker|a shop] [{2-20} miles away|I can't reach|that is closed]
- [the|my] [locker code|pick-up code] [doesn't work|never came|has expired]
+ [I'm|I am] only home [after {time}|on {day}|at weekends]
? [can it|can they] [be left with a neighbour|come on {day}|try again]?
? how long [is it|do they keep it] [kept there|]?
@ gift | Orders | Gift wrap and gift cards
= Gift wrap can be chosen in the basket; prices never appear on the slip of a gift.
= Gift cards are sent by mail at once and are valid for three years.
! gift [card|wrap|message]
! [present|gift] question
- [can you|do you] [wrap|gift wrap] the {product} [as a present|with a card|]
- [I want|I'd like] to [buy|send] a gift card [of {amount}|for {first}|]
- [my|the] gift card [has no balance|can't be used twice|never arrived by mail|code is unreadable]
- [please|can you] [leave out|remove] the [invoice|price] [since|because] it's a [gift|present]
- [can I|how do I] add a [gift message|greeting|personal note] [to {order}|]
+ [it's for|the birthday of] [my mum|{first}|a friend] [on {future}|next week|]
? is [that|gift wrapping] free?
@ assembly | Products | Assembly and spare parts
= Instructions for every product can be downloaded from its page, and spare parts cost only the postage.
= Please name the part by the letter it has in the drawing.
! [assembly|instructions|manual|spare part]
! how to [assemble|put together] the {product}
- [the|your] [manual|instructions] for the {product} [are missing|are unreadable|make no sense]
- [how do I|I can't figure out how to] [assemble|put together|set up|mount] the {product}
- [I need|where can I buy] [a spare|a replacement] [part|screw|wheel|lid|filter] for [the|my] {product}
- [step|page] {2-14} [of the manual|in the instructions] [is wrong|does not match the parts]
- [the holes|part {LL}] [don't line up|doesn't fit] [when assembling|with the frame]
? [can you|please] [send|mail] [me|] [the manual|the part|a video]?
? which [tool|part] do I need?
@ wholesale | Products | Business and bulk orders
= Thank you for your interest. For ten pieces or more we make you an offer with net prices within one day.
= Please name quantities, delivery place and your tax number.
! [bulk|wholesale|business] [order|enquiry|account]
! quote for {20-300} pieces
- [we|our company] [want|would like] to [order|buy] {20-300} [pieces of the|] {product} [for our staff|for resale|for \
an event]
- [do you|can we get] [offer|] [wholesale|bulk|volume] [prices|discount] [for {20-300} pieces|]
- [can we|is it possible to] [pay by invoice|order on account|open a business account]
- [please|could you] [send|make] [us|] [a quote|an offer] for {20-300} [{product}|items]
- [can you|do you] print our logo on the {product}
+ [delivery|we need them] [by {future}|to {city}]
? who [is|would be] our contact?
"""
