"""English telecom: mobile, broadband, television."""

PACK = """
$ product: Fibre 250; Fibre 1000; Unlimited Max; SIM Only 20; Family Plan; TV Plus; Prepaid Flex; Travel Pass; \
Smart Router; Home Phone; 5G Home
$ order: contract {order_no}; customer no {order_no}; {order_no}; account {order_no}
$ room: living room; bedroom; office; attic; kitchen; whole house
$ country: Spain; the US; Turkey; Switzerland; Japan; Egypt; Morocco
@ no_internet | Broadband | No internet at home | slow_internet
= Please unplug router and modem for one minute. If the light stays red there is a fault in the line.
= A technician can come within two days; we have measured your line and opened a case.
! [no|lost] [internet|connection|broadband]
! internet [down|outage|not working]
- [we have|I have] no internet [at all |][since {day}|since this morning|for {days}|at home]
- [the|our] [internet|broadband|{product}] [is down|is dead|does not work|went off] [again|since {time}|in {city}|]
- the router [light|lamp] [is red|blinks orange|stays off] and [nothing works|no connection|I can't get online]
- [is there|are you having] [an outage|a fault|maintenance] in {city} [today|right now|]
- [the connection|wifi|our line] [drops|cuts out] [every {5-30} minutes|all the time|each evening]
+ [restarted|I restarted] the router [{2-6} times|twice|several times]
+ [all|the] [neighbours|other flats] [have it too|are fine]
? when [will it|is it going to] [be fixed|work again]?
? [can you|please] [send a technician|test the line|check for an outage]?
@ slow_internet | Broadband | Slow internet | no_internet
= Please measure by cable with our speed test three times a day and send the results.
= Often another radio channel or place of the router doubles the speed by wifi.
! slow [internet|wifi|connection|speed]
! speed [problem|lower than booked]
- [our|the|my] [internet|wifi|{product}] is [very|so|way too|incredibly] slow [in the evening|since {day}|in the \
{room}|]
- [I pay|we pay] for {250-1000} Mbit [and|but] get [only|just] {2-60} [in the {room}|on a good day|]
- [video calls|streaming|games|downloads] [freeze|lag|stutter|buffer] [all the time|in the {room}|every evening]
- [the speed test|I measured and it] shows {2-60} Mbit [instead of {100-500}|over cable|]
- [wifi|the signal] [does not reach|is weak in] the {room}
+ [by cable|over wifi] it is [the same|even worse|slightly better]
? [can you|please] [check the line|boost it|send a better router]?
? what [can I|should I] do to [get the full speed|improve it]?
@ no_signal | Mobile | No mobile signal | roaming
= Please restart the phone and choose the network by hand. There is work on a mast near you until the weekend.
= Calls by wifi can be switched on in the settings meanwhile.
! no [signal|network|mobile data|reception]
! [bad|poor] reception
- [I have|there is] no [signal|mobile network|reception|mobile data] [at home|in {city}|since {day}|on my {device}]
- [calls|my calls] [drop|fail|cut off] [after {2-9} minutes|all the time|in the {room}]
- my [{device}|phone] [shows|says] [no service|emergency calls only|SIM not registered] [since {time}|]
- [mobile data|5G|LTE] [does not work|is not available] [in {city}|on my {device}|any more]
- [I can't|cannot] [send texts|make calls|receive calls] [from my phone|since {day}]
? is there [a mast down|work in my area]?
? [can you|please] [check the network|reset my line]?
@ roaming | Mobile | Roaming and use abroad | no_signal
= Roaming is free inside the union; elsewhere a Travel Pass keeps the price in check.
= It is switched on in the app and on the phone under Mobile data.
! roaming [question|charges|in {country}]
! [using|phone] abroad
- [does|will] my [plan|{product}|phone] work in {country} [and what does it cost|]
- [I was|you] charged {amount} for [roaming|mobile data|calls] in {country}
- [I am|we are] in {country} and [have no data|roaming does not work|can't call]
- [how do I|can I] [activate|book|switch on] [roaming|a travel pass|the {product}] for {country}
- [which|what] countries are [included|covered] in [my|the] {product} [roaming|]
+ [we leave|I travel] on {future}
? [can you|please] [switch it on|explain the prices|cancel the charge]?
@ sim | Mobile | SIM card and eSIM | port_number
= A new SIM is active within an hour after you enter its number in the app; restart the phone then.
= An eSIM code can be used once; we have sent you a new one.
! [SIM|eSIM] [activation|card|replacement]
! new [SIM|eSIM]
- [how do I|I can't|can you] activate [my|the|a] [new|] [SIM|eSIM|SIM card] [on my {device}|]
- [I need|please send me] a [new|replacement|second] SIM [card|] [because I lost my phone|for my {device}|]
- [the|my] eSIM [code|QR code] [does not work|was already used|never came]
- [my|the] SIM [is blocked|asks for a PUK|is not recognised] [by my {device}|]
- [I'd like|can I] to [switch|move] from [SIM to eSIM|one phone to a new {device}]
? what is [my PUK|the code]?
? [can you|please] [activate it|send a new one]?
@ port_number | Mobile | Keep my number | sim
= Please ask your old provider to release the number; then the move takes up to three working days.
= We send you a text with the exact day.
! [port|transfer|keep] my number
! number [porting|transfer] [delayed|question]
- [I want|can I|I'd like] to [keep|bring|port|transfer] my [old|] number [to {company}|from my old provider|]
- [the|my] number [port|transfer] [failed|is delayed|was rejected|has not happened] [since {date}|]
- [I'm leaving|I switch to another provider] and need [a porting code|my number released]
- [since|after] the porting [I can't receive calls|my old number is dead|texts get lost]
- [how long|when] [does|will] [the porting|my number move] [take|happen]
? [can you|please] [release it|tell me the date|send the code]?
@ bill_high | Billing | Bill higher than expected | charged_twice
= I went through your bill: the difference comes from calls outside the plan and a part of a month.
= Special numbers can be blocked in the app if you like.
! [bill|invoice] too high
! [unexpected|wrong] [bill|charges]
- [my|the|our] [bill|phone bill|last bill] is [much|way|far] [too high|higher than usual], {amount} [instead of \
{amount}|this month]
- [what|why] is the [charge|item|position] [of {amount}|for premium services|third party services] on my bill
- [I agreed|the contract says] {amount} [a month|for {product}] [and|but] you [bill|charge] {amount}
- [there are|I see] [calls|services|texts] on [my|the] bill [I never made|I did not order]
- [the|my] [discount|promised credit] [is missing|was not deducted] [on|from] the [bill|latest bill]
? [please|can you] [explain|correct] the bill?
? [please|can you] credit [the difference|{amount}]?
@ cancel_contract | Contract | Cancel my contract | change_plan
= We have noted the end of your contract; the date is in the letter. Your number can move with you.
= Would you like to hear an offer before you go?
! [cancel|terminate|end] [contract|{product}]
! cancellation [of {order}|notice]
- [I|we|I hereby] [want to|would like to|] cancel [my|our|the] [contract|{product}|line] [at the next possible \
date|by {future}|]
- [when|how] [can I|do I] cancel [{product}|my contract|{order}]
- [I cancelled|sent my notice] on {date} and [got no confirmation|you still charge me]
- [we are moving|I'm moving] [abroad|to {city}] and [need to|want to] [end|cancel] [the contract|{product}] early
- [you|my contract was] [extended|renewed] [automatically|by a year|without asking], I want out
? [please|can you] confirm [the end date|in writing]?
? what [is|are] the notice period?
@ change_plan | Contract | Change or renew plan | cancel_contract
= You can change the plan from the next month on; I have put two offers that suit your usage into the app.
= A new phone is possible every 24 months.
! [change|upgrade|renew] [plan|contract]
! [better|new] [deal|offer|tariff]
- [I want|we'd like|can I] to [change|switch|upgrade] [from {product} |]to {product2}
- [what|which] [offers|deals|plans] [do you have|can I get] [for a loyal customer|when my contract ends|]
- [I'd like|can I] to [renew|extend] [my contract|{order}] [with a new {device}|for a lower price|]
- [I need|can I add] more [data|gigabytes|minutes] [on|to] [my|] {product}
- [new customers|others] get {product} for {amount}, [why do I pay more|I want that too]
? [can you|please] [make me an offer|switch me]?
? from when [does it|would it] apply?
@ move_house | Contract | Moving house
= Please tell us the new address four weeks ahead; the line moves with you for a fee of 29.
= If we have no line there you may leave the contract early.
! moving [house|to {city}|home]
! [relocation|new address] [of internet|]
- [we are|I'm] moving to [{street} in {city}|{city}|a new flat] on {future} [and want to take|with] [our|the] \
[internet|{product}]
- [is|do you have] {product} [available|] at [my new address|{street}, {city}]
- [we moved|I moved] [{days} ago|on {date}] and [the line is not|internet still isn't] [switched on|connected]
- [how do I|what must I do to] [move|transfer] [my line|{product}|{order}] to [a new address|{city}]
- [the|your] technician [for the move|at the new flat] [did not come|could not find the socket]
? what does [it|the move] cost?
? [can you|please] [arrange it|book a date|check the address]?
@ technician | Broadband | Technician appointment
= The technician comes between 8 and 12 or between 12 and 4 and rings half an hour before.
= I have booked the next free date for you; please have an adult at home.
! technician [appointment|did not come|reschedule]
! [installation|appointment] [date|missed]
- the technician [did not show up|never came|cancelled] [on {day}|today|for the {2-3}nd time]
- [I need|can we] to [change|move|reschedule] the [technician|installation] appointment [on {future}|]
- [when|what time] does the [technician|engineer] come [on {day}|to {street}|]
- [I waited|we waited] [all day|{4-9} hours|from 8 to 4] for [the|your] [technician|engineer]
- the [technician|engineer] [left a mess|said he can't drill|did only half of the work]
+ [I took|took] [a day|half a day] off [for this|work]
? [please|can you] [send someone|give me a new date]?
@ router | Broadband | Router and equipment
= Please press the reset button for ten seconds; the name and key of the wifi are on the label.
= A faulty router is swapped within two days; send the old one back with the label enclosed.
! router [question|broken|password|return]
! [wifi password|new router]
- [the|my|our] [router|modem|repeater] [is broken|is dead|restarts by itself|makes a noise|gets hot]
- [what|where] is the [wifi password|router password|network key] [of the Smart Router|]
- [I want|can I] to use my own router [with {product}|]
- [how do I|I can't] [set up|connect|install] the [new|] [router|repeater|modem]
- [where|how] [do I|must I] return the [old|] [router|equipment] [after cancelling|]
? [can you|please] [swap it|send a new one|help with the setup]?
@ tv | Television | TV channels and box
= Please start a channel search under Menu, Installation; that brings lost channels back.
= Packages can be added by the month in the app.
! TV [channels missing|box|picture]
! television [problem|package]
- [some|half of the|all sports] channels [are gone|are missing|show no signal] [since {day}|on TV Plus|]
- the TV [box|receiver] [does not start|freezes|shows error {ddd}|asks for a PIN]
- [the|our] [TV|picture] [freezes|pixelates|has no sound] [in the {room}|every evening|]
- [how do I|can I] [record|add sports|watch on my {device}|cancel TV Plus] [with the TV box|]
- the remote [control|] [does not work|lost the pairing|is broken]
? [can you|please] [send a new box|reset it|tell me how]?
@ prepaid | Mobile | Prepaid credit
= Credit can be added in the app, at tills and by text; it is valid for a year.
= The missing amount has been added to your number now.
! [prepaid|credit|top-up] [missing|question]
! balance [gone|wrong]
- [I topped up|bought] {amount} [prepaid credit|of credit] and [it is not there|the code is invalid]
- [my|the] [prepaid|] credit [is gone|disappeared|expired] [overnight|although I did not call|]
- [how do I|where can I] [top up|check] my [prepaid|] [credit|balance]
- [can I|how do I] [switch|change] from prepaid to [a contract|{product}]
- [how long|until when] is [my|the] prepaid [credit|number] valid
? [can you|please] [add it|check my balance]?
@ hidden_number | Mobile | Nuisance calls and blocks
= Unknown and premium numbers can be blocked under Safety in the app.
= Please report threats to the police as well; we keep the data for them for seven days.
! [nuisance|spam|unwanted] calls
! block [number|premium services]
- [I get|we get] [spam|nuisance|anonymous] calls [every day|{3-20} times a day|at night] [from {phone}|]
- [how do I|can you] block [a number|premium numbers|anonymous calls|{phone}]
- [someone|a scammer] [pretends to be|says they are from] {company} [on the phone|and asks for my PIN]
- [please|can you] [hide|withhold|unlist] my number [from the phone book|]
- [people|strangers] [call me back|say I called] [although I never did|from my number]
? what can [be done|I do]?
"""
