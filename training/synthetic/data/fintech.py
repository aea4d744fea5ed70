"""English fintech: accounts, cards, transfers."""

PACK = """
$ product: Everyday account; Savings pot; Metal card; Joint account; Junior card; Business account; Travel card; \
Round-ups; Budget tool; Crypto wallet; Credit line
$ order: transaction {order_no}; payment {order_no}; ref {order_no}; transfer {order_no}
$ merchant: a petrol station; Grocer & Co; an online shop; a hotel in {city}; a streaming service; a taxi app; \
a gym; a parking meter; a book shop
$ currency: euros; dollars; pounds; yen; Swiss francs; zloty
$ bank: my old bank; another bank; First National; the savings bank; my credit union
@ card_lost | Cards | Lost or stolen card | card_fraud
= Please freeze the card in the app at once; we have blocked it as well. A new one arrives in three to five days.
= Your virtual card works right away for payments by phone.
! [lost|stolen] card
! [block|freeze] my card
- [I lost|lost|I can't find] my [card|debit card|{product} card] [in {city}|on {day}|somewhere]
- my [wallet|bag|card] was stolen [in {city}|on the train|last night], [please block|block] [the card|everything]
- [please|how do I] [block|freeze|cancel] my card [right now|immediately|], [it is gone|I left it in a shop]
- [I need|send me] a [replacement|new] card, [mine is lost|the old one was stolen|it got swallowed by a machine]
- [I found|found] my card again [after blocking it|], can [you|I] unblock it
+ [last used|the last payment was] at {merchant} [on {day}|around {time}|]
? [please|can you] [block it|send a new one|confirm it's blocked]?
@ card_fraud | Cards | Payment I did not make | card_lost
= We have frozen the card and opened a dispute. Please confirm in the app which payments are not yours.
= You get the money back for the time of the investigation.
! [fraud|unauthorised payment|unknown transaction]
! payment I [did not make|don't recognise]
- [there is|I see] [a|an] [payment|transaction|charge] of {amount} [to|at] {merchant} [that I did not make|I don't \
recognise]
- [someone|somebody] [used|is using] my card [at {merchant}|online|in another country]
- [I did not|I never] [make|authorise] [the payment|{order}|this charge] [of {amount}|on {date}|]
- [I got|I fell for] [a fake text|a phishing mail|a scam call] and [money is gone|gave my card details]
- my [account|card] was [hacked|misused], [{2-6} payments|{amount}] [are not mine|went to {merchant}]
+ [my card|it] was [with me|at home] [the whole time|]
? [please|can you] [give the money back|dispute it|stop the payment]?
@ card_delivery | Cards | Card has not arrived | card_activation
= Cards come by ordinary mail in up to eight working days. Please check the address in the app.
= If it is later than that we send a new one by courier.
! [new card|card] [not arrived|delivery|where is]
! waiting for my card
- [my|the] [new|replacement|{product}] card [has not arrived|still isn't here|never came] [ordered on {date}|after \
{days}|]
- [when|where] [will|is] my [new card|replacement card|{product} card] [arrive|coming|]
- [I ordered|ordered] a card [on {date}|{days} ago] and [the post brought nothing|it's not here]
- [the|my] card [was sent|went] to [my old address|the wrong address|{street}]
- [can you|is it possible to] [send|ship] the card [by courier|to {city}|to my office]
? [can you|please] [track it|send another|check the address]?
@ card_activation | Cards | Activate card and PIN | card_delivery
= A card is activated in the app under Cards, and the PIN is shown there too. The first payment has to use the chip.
= After three wrong PINs you can unblock it in the app.
! [activate|PIN of] my card
! [PIN|activation] [problem|blocked|forgotten]
- [how do I|I can't] activate [my|the] [new|] card [in the app|]
- [I forgot|forgot|what is] my PIN [for the {product}|]
- [my|the] PIN is [blocked|not accepted] [after three tries|at {merchant}|]
- [how|where] [can I|do I] [change|see] the PIN [of my card|]
- contactless [does not work|is refused] with [the|my] new card
? [can you|please] [activate it|unblock the PIN|send a new PIN]?
@ card_declined | Cards | Card declined at merchant | payment_failed
= The shop's request was refused since online payments or that country are switched off in your card settings.
= Change it under Cards, Limits, and try again.
! card [declined|refused] at [{merchant}|shop|ATM]
! card [does not work|limit]
- my card was [declined|refused|rejected] at {merchant} [today|on {day}|] [though there is enough money|]
- [I can't|cannot] [pay|use my card] [at {merchant}|abroad|online|with my watch]
- [the|a] cash machine [in {city}|] [refused|did not accept|kept] my card
- [what is|can you raise] [my|the] [card limit|daily limit|ATM limit]
- [Apple Pay|Google Pay] [does not accept|refuses|lost] my {product} card
? why [was it|is it] declined?
? [please|can you] [raise the limit|unlock it]?
@ transfer_pending | Transfers | Transfer has not arrived | transfer_recall
= Transfers inside the area take one working day, others up to five. Yours is with the other bank.
= With the reference below that bank can find it.
! transfer [pending|not arrived|delayed]
! where is my [transfer|money]
- [my|the] transfer [of {amount}|to {first}|from {bank}] [has not arrived|is still pending|is stuck] [since \
{date}|after {days}|]
- [I sent|sent] {amount} [to {bank}|to {first}|on {date}] and [it never arrived|they have nothing]
- [my salary|a payment from {bank}|{amount}] [is not on my account|has not come in] [yet|this month]
- [how long|when] does a transfer [to {bank}|in {currency}|] [take|arrive]
- [the status|{order}] [is|says] [pending|processing] for {days}
? [can you|please] [trace it|speed it up|tell me where it is]?
@ transfer_recall | Transfers | Sent to the wrong account | transfer_pending
= We have asked the receiving bank to send the money back; it needs the consent of the holder there.
= You will hear from us within ten working days.
! [wrong|mistaken] transfer
! [recall|cancel|reverse] [transfer|payment]
- [I sent|transferred] {amount} to the wrong [account|person|IBAN] [by mistake|on {date}|]
- [please|can you] [cancel|reverse|recall|stop] [my|the] transfer [{order}|of {amount}|to {first}]
- [I made|there was] a typo in the [IBAN|account number|amount], [it should be|I meant] {amount}
- [I paid|sent the money] twice to {first}, [one has to come back|please recall one]
- [the recipient|{first}] [is a scammer|does not give it back], [reverse the transfer|I want it recalled]
? can [it|the money] still be stopped?
@ topup | Transfers | Top-up and deposits
= Top-ups by card are instant, those by bank transfer take a day and need your reference number.
= Cash can be paid in at partner shops for a fee.
! [top-up|deposit] [missing|failed|question]
! add money
- [my|the] [top-up|deposit] of {amount} [is missing|failed|is not credited|did not arrive]
- [how do I|how can I] [top up|add money to|pay cash into] my [account|{product}]
- [I topped up|deposited] {amount} [by card|with cash|from {bank}] and [the balance is the same|see nothing]
- [what are|are there] [fees|limits] [for|on] [top-ups|cash deposits]
- [I forgot|left out] the reference [when topping up|on the deposit]
? [can you|please] [book it|find it|check]?
@ fees | Fees | Fees and exchange rates
= All fees are in the price list; at weekends a markup of one per cent is added to exchange rates.
= As a courtesy we have given this fee back once.
! [fee|charge|exchange rate] question
! why [a|this] fee
- [why|what] [was I charged|is] [a|this] fee of {amount} [for {merchant}|on my {product}|]
- [what|how much] [are the fees|does it cost] [to withdraw cash abroad|for {currency}|for the {product}]
- [the|your] exchange rate [for {currency}|] is [worse than promised|wrong|bad]
- [you|I was] [took|charged] a [monthly|foreign|ATM|inactivity] fee [though|but] [my plan is free|nobody told me]
- [how|which rate] do you [convert|exchange] {currency}
? [please|can you] [refund the fee|explain it]?
@ verification | Account opening | Identity check | documents
= The picture was not sharp enough. Please repeat the check by daylight with the original document.
= A check takes up to one working day.
! [identity|ID] [verification|check] [failed|pending]
! [verify|KYC] [problem|question]
- [my|the] [ID check|identity verification|selfie check] [failed|is still pending|was rejected] [{2-4} times|for \
{days}|]
- [the app|it] [does not accept|rejects] my [passport|driving licence|ID card|residence permit]
- [I can't|how do I] [verify my identity|finish the verification|do the video call]
- [which|what] [ID|documents] do you accept [for verification|to open an account]
- [you ask|I was asked] to verify [again|my identity once more] [although I did|and the camera does not open]
? [what is|can you tell me what's] wrong with it?
? how long does [it|the check] take?
@ documents | Account opening | Account under review | verification
= The law asks us to check some payments. Please upload the proof of where the money comes from in the app.
= The account is open again as soon as our team has seen it.
! account [blocked|under review|restricted|frozen]
! [source of funds|documents] [request|]
- my account [is|has been] [blocked|frozen|restricted|under review] [since {date}|without warning|for {days}]
- [you want|you ask for] [proof of|documents on] [my income|source of funds|address] [and I sent them|why]
- [I uploaded|sent] the [documents|payslip|tax return] [on {date}|{days} ago] and [still no access|nothing happens]
- [I can't|cannot] [reach|withdraw] my money, the account [says|is] [restricted|in review]
- why [is|was] my account [closed|frozen|limited]
? when [will it be open|do I get access] again?
? [please|can you] [unblock it|review my documents]?
@ close_account | Account opening | Close the account | delete_account
= You can close the account in the app once the balance is zero; tell us where to send the rest.
= Statements stay available for a year.
! close [my account|{product}]
! account closure
- [I want|I'd like|please] [to close|close] [my|the] [account|{product}] [and pay out the rest|]
- [how do I|I can't find how to] close my {product}
- [I moved|I'm moving] to {bank} and [want to close|need you to close] [this account|my {product}]
- [please|can you] [close|terminate] my account and [send|transfer] {amount} to {bank}
- [what happens|is there a fee] when I close [the account|my {product}]
? [please|can you] confirm [the closure|in writing]?
@ statement | Documents | Statements and confirmations
= Statements for every month are in the app under Documents; a stamped confirmation is attached.
= Tax reports come out at the end of January.
! [bank statement|account confirmation|tax report]
! [statement|proof of account] needed
- [I need|please send me] [a|my] [bank statement|account confirmation|proof of balance|tax certificate] [for \
{date}|for my landlord|for a visa|]
- [where|how] [do I find|can I download] [my statements|the tax report|my IBAN letter]
- the statement [for last month|of {date}] [is missing|is empty|shows wrong amounts]
- [my|the] [landlord|embassy|accountant] wants a stamped [statement|confirmation] [of my account|]
- [can I|how to] [export|download] transactions [as CSV|as PDF|of 20{22-25}]
? [can you|please] [send it|stamp it|mail it]?
@ direct_debit | Transfers | Direct debits and standing orders
= Direct debits can be given back within eight weeks with one tap on the entry.
= Standing orders are under Payments, Planned.
! [direct debit|standing order] [question|returned|cancel]
! [stop|return] [direct debit|subscription]
- [how do I|I want to] [cancel|change|set up] [a|my] [standing order|direct debit] [to {first}|for {merchant}|of \
{amount}|]
- [the|a] direct debit [from {merchant}|of {amount}] [was returned|bounced|failed] [although I had money|]
- [please|I want to] [give back|return|block] the direct debit [from|of] [{merchant}|{amount}]
- my standing order [was not executed|ran twice|is missing] [on {date}|this month|]
- {merchant} [keeps debiting|still takes] {amount} [every month|although I cancelled]
? [can you|please] [stop it|return it|check why]?
@ loan | Credit | Loan and overdraft
= The decision is made by a score of income and history; you may ask for it again after three months.
= Early repayment is free under Credit, Repay.
! [loan|credit|overdraft] [question|application|repayment]
! credit line
- [my|the] [loan|credit|overdraft] [application|request] [was rejected|is still open|was declined] [why|]
- [I want|can I] to [repay|pay back] my loan [early|of {amount}|in full]
- [how do I|I'd like to] [apply for|raise|cancel] [an|the] overdraft [of {amount}|on my {product}|]
- [what is|which is] the interest [rate|] [on|for] [the credit line|a loan of {amount}|the overdraft]
- [I can't|cannot] pay [this month's|the] [instalment|rate] [on time|], can [it|we] [wait|move it]
? [can you|please] [explain|look at it again]?
@ savings | Products | Savings, pots and interest
= Interest is paid on the first day of a month; the present rate is in the app.
= Money in a pot can be taken out at any time.
! [savings|interest|pot] question
! interest [rate|not paid]
- [what|how high] is the [interest|rate] on [the|my] [savings|Savings pot] [now|]
- [I did not|I haven't] [get|receive] [the|any] interest [for last month|on my pot|]
- [how do I|can I] [open|close|share] a [pot|savings goal] [with {first}|for a holiday|]
- [is|are] [my savings|my deposits|the pot] [insured|safe|protected] [and up to what amount|]
- round-ups [stopped|took too much|do not go] [to my pot|since {day}|]
? [can you|please] explain [how it works|it]?
"""
