"""English food delivery: meals, couriers, restaurants."""

PACK = """
$ product: burrito bowl; pad thai; margherita; veggie burger; ramen; butter chicken; sushi box; poke bowl; lasagne; \
fish and chips; falafel wrap; dumplings; tiramisu; caesar salad
$ order: order {order_no}; #{order_no}; {order_no}; order no {order_no}
$ restaurant: Luigi's; Golden Wok; Burger Barn; Sakura; Taco Loco; Curry Palace; Green Fork; Pho House; Napoli Express
$ drink: cola; lemonade; iced tea; mango lassi; water
@ late_food | Delivery | Order is late | never_arrived
= Sorry for the wait! The kitchen was busier than planned; the map in the app shows your courier live.
= If the food is more than 30 minutes late you get a voucher by itself.
! [order|food|delivery] [is late|delayed|still not here]
! where is my [food|order|courier]
- [my|the] [order|food|{product}] [is late|is {20-90} minutes late|still isn't here|is not here yet][ from \
{restaurant}|]
- [where is|where's] [my|our] [food|order|{product}|courier]? [ordered|we ordered] [at {time}|{40-120} minutes ago|]
- [the app|it] [says|shows] [10 more minutes|arriving soon|preparing] for [the last|] [hour|{30-90} minutes]
- [the|our] [courier|rider|driver] [is not moving|goes the wrong way|stands still] on the map
- [I've been|we are] waiting [for {restaurant}|] [since {time}|for {40-110} minutes|forever]
+ [the kids|we|my guests] are [starving|really hungry]
? [when|how long until] [will it come|does it arrive]?
? [can you|please] [call the courier|check|hurry them up]?
@ never_arrived | Delivery | Marked delivered, never came | late_food
= We are sorry that you got nothing. The courier's position was checked and the full amount is on its way back.
= Please see that the pin on the map is at your door.
! [food|order] never [arrived|came]
! [marked|says] delivered but [nothing here|no food]
- [my|the] [order|food] [never arrived|did not come|was never delivered] [from {restaurant}|on {day}|]
- [the app|it] says delivered [at {time}|] but [I got nothing|there is no food|nobody was here]
- [the|your] [courier|rider] [left|gave] my [food|order] [at the wrong house|to somebody else|in the street]
- [the|your] [courier|rider] [ate|stole|ran off with] [my|our] [food|order|{product}]
- [the delivery photo|picture] [shows|is of] [another door|a house that's not mine]
+ [I waited|we stood] outside [for {10-30} minutes|the whole time]
? [I want|can I get] [my money back|a refund|it delivered again]?
@ missing_food | Order quality | Missing items | wrong_food
= Thanks for letting us know; the price of what was missing has been added to your balance.
= We have told the restaurant to check its bags.
! missing [item|food|drink|sauce]
! [incomplete order|something missing]
- [the|my] [{product}|{drink}|sauce|side|dessert] [is missing|was not in the bag|was forgotten] [from {restaurant}|]
- [only|we got only] [half|part|{1-2} of {3-5} items] of [the|our] order [arrived|came|from {restaurant}]
- [{restaurant}|they|you] forgot [the|my|our] [{product}|{drink}|cutlery|dips]
- [I paid|we paid] for {2-4} [{product}s|drinks|portions] [but|and] [there was|got] only one
- [order|the bag] [incomplete|was not complete], no {drink} [and no {product}|]
+ [the bag|it] was [sealed|open|taped]
? [please|can you] [refund it|bring the rest|credit it]?
@ wrong_food | Order quality | Wrong order received | missing_food
= That was somebody else's bag, sorry! You need not return it; the full amount has been refunded.
= If you are still hungry, a new order goes out at once.
! wrong [order|food|dish]
! not what I ordered
- [I got|we received|they sent] [the wrong order|somebody else's food|the wrong dish|a different {product}] [from \
{restaurant}|]
- [I ordered|ordered] [the|a] {product} [and|but] got [the|a] {product2}
- [this is|that's] not [my|our] order, the [receipt|name on the bag] says {first}
- [asked for|I wanted] [no onions|vegan|extra spicy|gluten free] and [it came with|got] [meat|onions|cheese]
- [the|my] {product} was [the wrong size|chicken instead of tofu|not the one I picked]
? [can you|please] [send the right one|refund me|fix this]?
? what [should I|do I] do with the [wrong|other] food?
@ cold_food | Order quality | Cold, spilled or bad food | allergy
= This is not what we want on your table. Please add a photo; a part of the price is on your balance.
= The restaurant has been told.
! [cold|spilled|burnt|bad] food
! [quality|food] complaint
- [the|my|our] [food|{product}|order] [was|arrived|came] [cold|ice cold|soggy|spilled all over|burnt|raw inside]
- [the|my] {product} [tasted off|smelled bad|was inedible|was dry] [from {restaurant}|]
- [the|my] {drink} [leaked|spilled] [over everything|in the bag]
- [there was|I found] [a hair|plastic|an insect] in [the|my] {product}
- [the portion|the {product}] [was tiny|looked nothing like the photo]
+ [photo|picture] [attached|in the app]
? [I want|can I have] [a refund|my money back]?
@ allergy | Order quality | Allergies and illness | cold_food
= Please stop eating and see a doctor if you feel unwell; our safety team will call you today.
= Allergens are shown by each restaurant on its page and can't be guaranteed by us.
! [allergy|allergen|food poisoning]
! [got sick|ill] after [eating|order]
- [I|my son|my partner|{first}] got [sick|ill|food poisoning|a rash] after [eating|] [the|] {product} [from \
{restaurant}|]
- [I have|{first} has] [a nut|a milk|a shellfish|an egg] allergy [and|but] the {product} [had|contained] [nuts|milk|it]
- [does|is] the {product} [at|from] {restaurant} [contain|free of] [nuts|gluten|lactose|sesame]
- [where|how] [do I|can I] see [allergens|ingredients] [of {restaurant}|for the {product}|]
- [the note|my note] about [my allergy|nuts] was ignored [by {restaurant}|]
? who is [responsible|liable]?
? [please|can you] [check the ingredients|report the restaurant]?
@ cancel_food | Order | Cancel my order | change_food
= Orders can be cancelled free of charge until the restaurant accepts them. Yours has been stopped.
= The amount is released by your bank within three days.
! cancel [order|my order|now]
! [cancellation|ordered by mistake]
- [please|I want to|I need to|can I] cancel [my order|{order}|the order from {restaurant}] [right away|it takes too \
long|]
- [I ordered|ordered] [twice|by accident|by mistake] [at {restaurant}|], [please cancel|cancel one]
- [{restaurant}|you|they] cancelled my order [without reason|after {20-60} minutes|and I want to know why]
- [I can't|there is no way to] cancel in the app
- [cancel|stop] [{order}|the {product}], [wrong restaurant|we have to leave|I changed my mind]
? will I be [charged|refunded]?
@ change_food | Order | Change address or items | cancel_food
= I have told restaurant and courier. For a changed address there may be an extra fee.
= Next time you can change an order in the app within one minute.
! [wrong|change] [address|delivery address]
! [change|add to] [order|my order]
- [I put|I gave|the app used] the wrong [address|flat number|pin] [for {order}|], [it is|I'm at] {street}
- [can you|I want to] [add|remove|change] [the {product}|a {drink}|something] [to|from|in] [my order|{order}]
- [please|can you] [tell|ask] [the courier|{restaurant}] [to ring twice|no onions|to leave it at the door]
- [I want|can I] to [change|move] the [delivery time|order] [to {time}|for later|]
- [I forgot|forgot] to [add|choose] [a {drink}|the sauce|extra rice]
? is [it|that] still possible?
@ courier | Delivery | Courier behaviour
= Thank you for telling us. We take this seriously and will speak to the courier.
= You will not be matched with this courier again.
! [courier|rider|driver] [complaint|behaviour|rude]
! problem with [the courier|my driver]
- [the|your] [courier|rider|driver] was [rude|aggressive|unfriendly|shouting] [when I opened|on the phone|at {time}|]
- [the|your] [courier|rider|driver] [refused to|would not] [come upstairs|bring it to the door|wait]
- [the|your] [courier|driver] asked for [cash|a tip|my number] [at the door|]
- [the|your] [driver|rider] [parked on my lawn|rang at midnight|damaged our gate]
- [the|your] courier [was so nice|did a wonderful job|helped my mother], [please thank him|give her a bonus]
? [please|can you] [do something|talk to them|make sure it doesn't happen again]?
@ tip | Payment | Tips
= Tips go to the courier in full and can be changed for an hour after the delivery.
= I have corrected the amount for you.
! tip [question|wrong|refund]
! [change|remove] tip
- [I want|can I|how do I] to [change|add|remove] the tip [for {order}|after delivery|]
- [I tipped|tipped] {amount} by [mistake|accident] [instead of {2-5}|]
- [does|do] the [courier|rider] get [the whole|all of my] tip
- the app added a tip [of {amount}|automatically|] I [did not choose|never agreed to]
- [I'd like|can I] to tip in cash [instead|]
? [can you|please] [refund the tip|correct it]?
@ subscription | Membership | Plus membership | cancel_plus
= Plus gives free delivery above 15 at all marked restaurants; it is billed by the month.
= I have started it again and credited the fee of your last order.
! [Plus|membership] [question|not working|benefits]
! free delivery not applied
- [I have|I'm a member of] Plus [and|but] [still paid delivery|was charged a fee|free delivery is gone]
- [what|which] [are the benefits|restaurants are included] [of|in|with] [Plus|the membership]
- [my|the] Plus [membership|trial] [is not active|disappeared|was not renewed]
- [can I|how do I] [share|pause|get] [Plus|the membership] [with my family|for a year|]
- [is there|do you have] a student [price|discount] for Plus
? [can you|please] [activate it|refund the delivery fee]?
@ cancel_plus | Membership | Cancel Plus membership | subscription
= Your membership ends with the paid month and nothing more will be charged.
= You can come back at any time.
! cancel [Plus|membership|subscription]
! [stop|end] [membership|Plus]
- [please|I want to|how do I] cancel [Plus|my membership|the subscription]
- [I was|you] charged {amount} for Plus [although I cancelled|after the trial|without my consent]
- [I never|I did not] [sign up|subscribe] [to|for] Plus [and want my money back|]
- [I don't|we hardly] [use|order with] Plus [any more|], [please stop it|end it]
- [the|your] cancel [page|button] for Plus [does not work|can't be found]
? [please|can you] confirm and refund {amount}?
@ reorder_app | App | App problems | login
= Please update the app and sign in again; that clears most hiccups.
= If it still fails, send us the phone model and the version.
! app [crash|not working|error|problem]
! [can't|unable to] order [in the app|]
- the app [crashes|freezes|closes|shows a blank page] [when I open {restaurant}|at checkout|on my {device}|]
- [I can't|cannot] [place an order|check out|add the {product}|open the basket] [in the app|on {browser}|]
- [the app|it] [does not find|can't load] [my address|restaurants|my location] [in {city}|]
- [since|after] the [last|] update the [app|map|search] [is broken|does not load|is in another language]
- [my|the] [basket|favourites|order history] [is|are] [empty|gone] [in the app|]
? [can you|please] [fix it|tell me what to do]?
@ area | Restaurants | Delivery area and opening
= We deliver up to five kilometres around a restaurant; new ones join every week.
= Opening times are set by the restaurants themselves.
! [delivery area|do you deliver to {city}]
! [restaurant|opening hours] question
- do you [deliver|come] to [{street}|{city}|my street|our office]
- [why|how come] [is|can't I see] {restaurant} [closed|not in the app|unavailable] [today|any more|]
- [when|until when] [does|is] {restaurant} [open|deliver] [on {day}|at night|]
- [it says|the app says] [out of area|address not served] [though|but] [you delivered last week|I live {1-3} streets \
away]
- [are you|will you be] [coming to|available in] {city}
? [when|is it planned that] [will you|you] expand?
@ group | Restaurants | Group and office orders
= For ten people or more we offer one bill and fixed delivery slots; the form is on our business page.
= Please order by 10 am for the same day.
! [office|group|catering] [order|lunch]
! order for {12-60} people
- [we want|I'd like] to order [lunch|food|{product}] for {12-60} people [on {future}|at our office|]
- [can we|is it possible to] [pay by invoice|split the bill|order as a group] [at {restaurant}|]
- [do you|does {restaurant}] offer [catering|office lunches|platters] [in {city}|]
- [how do|can] my colleagues [join|add to] [a|the] group order
- [the|our] [group|office] order [came in parts|was short of {2-6} meals]
? [can you|please] [make an offer|call us]?
@ partner | Restaurants | Join as restaurant or courier
= Thank you for your interest! Please fill in the form on our partner page and our team will call within a week.
= Couriers need a bike, a phone and a work permit.
! [become a partner|join as] [restaurant|courier]
! [partner|rider] application
- [I own|we run] a [restaurant|café|pizzeria] in {city} and [want to join|would like to sell with you]
- [I want|I'd like] to [work|apply|ride] as a [courier|rider|driver] [in {city}|]
- [what|how much] [commission|percentage] do [restaurants|partners] pay
- [I applied|applied] as a [rider|courier|restaurant] [on {date}|{days} ago] and [heard nothing|what's the status]
- [which|what] [documents|bike|insurance] [do I|does a rider] need
? who [do I|can I] talk to?
"""
