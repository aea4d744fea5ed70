"""English: what every ticket has around its matter, and the intents that every industry shares."""

PHRASES = """
$ first: Anna; Ben; Chloe; Daniel; Emma; Farah; George; Hannah; Imran; Julia; Kevin; Laura; Marcus; Nadia; Oliver; Priya
$ last: Archer; Bennett; Castell; Dunmore; Ellery; Fairchild; Grant; Hollis; Ibrahim; Jansen; Keane; Lowell; Mensah
$ agent: Sam; Jo; Alex; Tom; Mira; Dana; Luis; Kim; Robin
$ city: Leeds; Bristol; Austin; Denver; Cork; Perth; Portland; Glasgow; Toronto; Boston; Cardiff; Tampa; Oakland
$ day: Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday
$ time: {7-11} am; {1-9} pm; {7-11}:[05|15|30|45] am; {1-9}:[10|20|35|50]pm; noon; around {2-8}ish
$ amount: ${5-180}; ${12-320}.{dd}; {10-240} dollars; ${1-3},{ddd}; £{8-140}; £{4-90}.{dd}; {6-90} euros
$ days: {2-9} days; {2-6} days; a week; two weeks; {3-6} weeks; ten days; more than a week; nearly a month
$ device: iPhone; iPhone 13; Pixel; Samsung; laptop; iPad; MacBook; Android phone; work PC; Chromebook
$ browser: Chrome; Firefox; Safari; Edge; the app; your mobile site
$ phone: +1 {ddd} {ddd} {dddd}; 0{dddd} {dddddd}; ({ddd}) {ddd}-{dddd}; +44 {dddd} {dddddd}
$ street: {1-180} Mill Lane; {1-90} Church Road; {2-99} Oak Street Apt {1-9}; {10-900} W {2-60}th St; {1-60} Harbour \
View
% greeting
- [Hi|Hello|Hey|Hiya][ there| team| all| {company}| support|],
- [Dear|Good morning|Good afternoon|Good evening][ {company}| team| support team| Sir or Madam|],
- [To whom it may concern|Hello {agent}|Hi {agent}],
% chat_greeting
- [hi|hello|hey|hiya|hi there|yo|good morning|morning]
% opening
- I [hope|trust] [you are|you're] [well|doing well|having a good week]
- [I'm|I am] [writing|getting in touch|reaching out] [because I need some help|with a problem|about something that is \
bugging me]
- I have been [a customer|with you] [for {2-9} years|since 20{10-22}|for quite a while] and [never had to write \
before|usually am very happy]
- [not sure|I'm not sure] if this is the right [place|address|form] [to ask|for this] but [here goes|let me try]
- [sorry|apologies] [to bother you|for the long message|if this was asked before|for writing again]
- [I tried|tried] [the help pages|your FAQ|the chat bot|calling] [first|already] [but got nowhere|without luck|and it \
did not help]
- [this is|it's] [the second|the third|already the second] time I [write|am contacting you] about this
- [I spoke|I was talking] to {agent} on {day} and was told to [write here|send you an email|use this form]
- [quick|small|simple] question [for you|] [today|this time|really]
- [I'm|I am] [getting a bit|really|quite] [frustrated|confused|annoyed] [with this|here|by now]
% aside
- [it is|it's] [raining|boiling hot|freezing] here in {city} and I have [better things to do|no patience left]
- my [husband|wife|sister|neighbour|colleague|son] {first} [recommended|suggested] you [to me|] [last year|back then|]
- [we are|we're] [moving house|having a baby|travelling|very busy] [soon|at the moment|next month] so [everything is \
a bit hectic|bear with me]
- [I do|I really do] [like|love] [your service|what you do|the new look] [by the way|otherwise|in general]
- I work [nights|shifts|in an office all day] so I [can't|cannot] [call|pick up the phone] [during the \
day|before {time}]
- my [daughter|father|flatmate] says [I should just give up|it worked fine for her|the same thing happened to him]
- [I looked|looked] [everywhere|all over the site|through my mails] [for an answer|and found nothing useful]
- [I use|I'm on] [my|an old|a new] {device} [with|and] {browser} [if that matters|in case it helps|]
- [screenshot|photo|picture] [attached|is attached|below][, hope it helps|]
- [I was on hold|I waited on the phone] for {10-55} minutes [yesterday|on {day}|this morning] [and gave up|before the \
line dropped]
- [my account is under|the account is registered to] {email}
- [for reference|in case you need it], [my number is|the reference is] {order}
- [happy|glad] to [send|provide] [more details|more info|whatever you need] [if needed|]
- [I asked|asked] [a friend|around|in a forum] and [nobody knew|got three different answers]
- [it happened|this started] [on {date}|{day} evening|around {time}|right after lunch] [I think|if I remember right|]
- [it is not|it's not] [the end of the world|a big drama], [but still|but I would like it sorted|]
- [the weather|traffic|the news] [is bad enough|is a mess] this week [without this|as it is|]
- [I have had|I had] [nothing but good experiences|a few hiccups] [so far|before|with you in the past]
% urgency
- [this is|it is|it's] [really |very |quite |][urgent|time sensitive]
- [I need|we need] [this sorted|an answer|a reply] [by {day}|today|before the weekend|asap|within 24 hours]
- [please|can you] [treat this as urgent|hurry|prioritise this][, thanks|]
- I [can't|cannot] wait [any longer|another week|much longer]
% ask
- [can|could] [you|someone|anybody] [please |][help|help me with this|look into this|sort this out|advise]?
- [please|kindly] [advise|help|get back to me|let me know what to do|look into it]
- what [should I|do I|can I] do [now|next|about it]?
- [let me know|tell me] [what you need from me|how to proceed|if you need anything else]
- [any|some] [help|idea|update] [would be great|please|is appreciated]?
% thanks
- [thanks|thank you|many thanks|thx|cheers][ in advance| a lot| so much| for your help| for your time|]
- [I appreciate|appreciate] [it|your help|any help]
% closing
- [Kind regards|Best regards|Best|Regards|Thanks|Cheers|Sincerely|Yours|Warm wishes|Many thanks],
% signature
- {me}
- {name}
- {name}
- {name}\\n{phone}
- {name}\\n{street}, {city}
- {name}\\n[Office Manager|Teacher|Freelance Designer|Operations|Sales Lead|Head of Finance]\\n{phone}
% device
- Sent from my [iPhone|iPad|Samsung Galaxy|Android device|mobile, excuse typos]
- Get Outlook for [iOS|Android]
- [This e-mail and any attachment are confidential and meant for the addressee only.|Please consider the environment \
before printing.]
% quote_head
- On {weekday_short}, {date_long} at {clock}, {company} Support <{support}> wrote:
- On {date_long}, {agent} from {company} wrote:
- -----Original Message-----\\nFrom: {company} Support\\nSent: {date_long} {clock}
% quote
- Hi {me},
- Hello {me},
- Thank you for contacting {company}.
- We have received your request and will [answer|be in touch] within {12-48} hours.
- Your ticket number is {ddddddd}.
- Could you [please |][send us|provide] [a few more details|your account email|a screenshot]?
- [Best wishes|Kind regards], {agent}
- Please do not change the subject line when you answer.
% also
- [also|and another thing|one more thing|on another note|while I'm at it|by the way]: {other}
- [also|besides|plus], {other}
- [last month|a while ago|back in spring|earlier this year] I [wrote|had a ticket] because {other}, [that was \
solved|not sure that was ever fixed|different story]
- [not sure if related|maybe related|could be connected], but {other}
% vague
- [I have|there is] [a problem|an issue|something wrong] with [my account|my last order|this|what I got from you]
- [it|this] [does not work|is not working|isn't right|went wrong] [again|at all|like it should]
- [please|can someone] [call me|contact me|get back to me] [about my request|about {order}|regarding this]
- [see|please see] [the attached|attachment|below|my earlier mail][ and fix it|, same thing again|]
- [still waiting|still no answer|nobody answered] [on|about|regarding] [my last message|this|{order}]
% subject
- [Help|Help needed|Question|A question|Problem|Issue|Support request|Please help|Request]
- [my order|my account|account|Order {order}|{order}|ref {order}]
- [your mail of {date}|follow up|my message from {day}|contact form|Enquiry|Customer enquiry]
% subject_prefix
- [Re: |RE: |Fwd: |URGENT: |Re: Re: |Web form: ]
"""

COMMON = """
@ login | Account | Cannot log in | two_factor
= Sorry that you cannot get in. Please use "Forgot password" on the sign-in page; the link stays valid for one hour.
= If no mail arrives, look into the spam folder and check that you use the address you registered with.
! [can't|cannot|unable to] [log in|login|sign in]
! [password|login] [problem|reset|not working]
- I [can't|cannot|am unable to] [log in|login|sign in|get into my account][ any more| since {day}| on my {device}|]
- [my|the] password [is not accepted|isn't working|is always wrong|no longer works][ even though I know it is right|]
- the [password reset|reset] [mail|email|link] [never arrives|does not come|has expired|leads to an error]
- [I am|I'm] [locked out|shut out] of my account [after {3-6} attempts|and can't reset the password|since the update]
- [it|the site] [says|keeps saying] [invalid credentials|wrong email or password|account locked] when I [sign in|try \
to log in]
+ [I tried|tried] [resetting it|a new password|{browser}|my {device}] [{2-5} times|twice] [already|] [with no \
luck|same result]
+ [nothing|no mail] in [my|the] spam folder [either|]
+ [I have not|I haven't] changed [anything|my password] [in ages|recently|since {date}]
? [can you|could you|please] [unlock my account|reset my password|send me a new link|let me back in]?
? how [do|can] I [get back in|reset it|log in again]?
@ two_factor | Account | Verification code does not arrive
= Codes usually arrive within a minute. Please check that the phone number in your profile is current and try again.
= If you have a new phone, reply with the last four digits of the old number and we will reset the second step.
! [verification|security|2FA] code [not arriving|missing|problem]
! [two-factor|two step] [login|problem]
- [I don't|I do not] [get|receive] the [verification|security|six digit|SMS|login] code [on my phone|by text|any more|]
- [I have|got] a new [phone|number|{device}] and [the|my] [authenticator|2FA|two-factor] [app is gone|codes no longer \
work|is on the old one]
- the [code|one-time code] [I receive|from the text] is [always|immediately] [invalid|expired|rejected]
- [I am|I'm] stuck at the [second step|two-factor screen|page that asks for the code] [when signing in|at login|]
- [lost|I lost] my [phone|backup codes|authenticator] and can't [confirm|verify] [the login|that it's me]
+ [my new number is|the number should be] {phone}
+ [I pressed|pressed] resend [{2-9} times|several times|again and again]
+ [other|normal] text messages [arrive fine|come through]
? [can you|please] [turn off|reset|disable] [two-factor|the second step|2FA] [for me|on my account]?
? [could you|can you] send the code [by email|some other way|to my new number] [instead|]?
@ change_contact | Account | Change email, phone or name
= You can change contact details under Settings, Profile. We then send a confirmation to the old and the new address.
= For a change of legal name, please attach a copy of the document that shows it.
! [change|update] [my|of] [email|email address|phone number|name|contact details]
! new [email|phone number|last name]
- I [want|would like|need] to [change|update] [my|the] [email|email address|phone number|contact details][ on the \
account| to {email}|]
- [my|our] [email|phone number] has changed[ and I can't edit it| and the profile won't let me save|]
- I [got married|changed my name] and [my last name|the name on the account] [has to be|must be|should be] \
[updated|corrected|{last} now]
- [you|the system] [still send|sends] [mails|everything] to my old [address|email|work email]
- there is a typo in [my|the] [email|name|phone number] [I registered with|on my profile]
+ the [old|previous] [one|address] [no longer exists|was from my former job|is closed]
+ [new one|it should be|correct is] {email}
? [can you|could you|please] [change|update|correct] [it|that|this] [for me|on your side]?
? where [can|do] I [change|edit] [this|that] [myself|in the settings]?
@ delete_account | Privacy | Delete my account and data | unsubscribe
= We can delete your account and personal data within 30 days. Invoices have to be kept for as long as the law asks.
= Please confirm by answering this message from the registered address; a deletion cannot be undone.
! [delete|close|remove] my [account|data|profile]
! [GDPR|data] [request|deletion]
- [please|I want you to|I would like you to] [delete|erase|close|remove] my [account|profile|personal data|data][ \
completely| for good|]
- [how do I|I can't find how to] [delete|close|get rid of] my account
- [under|according to] [GDPR|the data protection law|article 17] I [request|demand] [erasure|deletion] of [all my \
data|my personal data]
- I [no longer use|don't need|stopped using] [your service|the account|{company}] and want [everything|my data] \
[deleted|gone|removed]
- [which|what] [data|information] [do you hold|have you stored] about me and [can it be deleted|please erase it]
+ [I do not|I don't] want [any trace|my card details|my address] [left with you|kept]
+ [please|kindly] [confirm|send confirmation] [in writing|once done|by mail]
? [can you|please] [confirm|do this] [when it is done|within the legal time|today]?
? how long [does|will] [it|the deletion] take?
@ unsubscribe | Privacy | Stop marketing mails
= We are sorry about the unwanted messages and have taken you off our lists. It may take two days until the last one.
= Messages about your orders and your account will still reach you.
! [unsubscribe|stop the emails|too many emails]
! [newsletter|marketing|spam]
- [please|I want to] [stop|unsubscribe me from|take me off] [the|your|all] [newsletter|marketing emails|mailing \
list|promotional texts]
- I [keep getting|still get|receive] [{2-6}|daily|constant] [newsletters|marketing emails|promo texts|adverts] [a \
day|from you|]
- [the|your] unsubscribe [link|button] [does not work|is broken|does nothing]
- [I never|never] [signed up|agreed] [to|for] [your newsletter|these mails|promotional messages]
- [I unsubscribed|unsubscribed] {2-5} times and the [mails|newsletters|texts] [keep coming|still arrive]
+ [I will|I'll] [report|mark] it as spam [next time|otherwise]
+ [latest one|the last one] [came|arrived] on {date} at {time}
? [remove|delete] my [address|email] from [the list|your marketing list] [please|now]
? [can you|please] [stop|end] [this|it]?
@ invoice | Billing | Copy of an invoice
= You find all invoices as PDF under Billing, Documents. A copy of the one you asked for is attached.
= If company name or tax number have to be added, send us the details and we will issue a corrected invoice.
! [invoice|receipt] [needed|request|missing|copy]
! [VAT|tax] [invoice|receipt]
- I [need|require|can't find] [an invoice|a receipt|the invoice|a VAT invoice] for [{order}|the payment of \
{amount}|{date}|my accountant]
- [please|could you] [send|resend|email] me [the|a copy of the] [invoice|receipt|bill][ as PDF|]
- [the|my] invoice [shows|has] [the wrong company name|no VAT number|the wrong address|an old address]
- [there was no|I never got an] [invoice|receipt] [with|for] [my order|the last payment|{order}]
- [our|my] [accountant|accounting|tax office] [needs|asks for] [a proper invoice|the receipt|invoices] for [last \
quarter|{date}|20{23-25}]
+ [company|the company] is [{last} Ltd|{last} and Sons|{last} Consulting], VAT {LL}{ddddddd}
+ [it was paid|I paid] by [card|bank transfer|PayPal] on {date}
? [can you|could you|please] [send it|issue it|correct it] [to {email}|as PDF|by {day}|again]?
? where [can|do] I download [it|the invoice|my receipts]?
@ charged_twice | Billing | Charged twice | payment_failed
= We are sorry about the second charge. Often one of them is a reservation which your bank releases within five days.
= If both are still booked after that, send us a picture of the statement and we will refund one at once.
! [charged twice|double charge|double payment]
! [wrong|unexpected] [charge|amount]
- [I was|I have been|you] charged [me |][twice|double|two times] for [{order}|the same thing|one purchase]
- [my|the] [card|bank] statement shows [two|2] [payments|charges|debits] of {amount} [from {company}|on {date}|on the \
same day]
- {amount} [left|was taken from] my account twice
- [the|an] amount [charged|on my card] is [higher|more] than [agreed|what I confirmed|shown at checkout], {amount} \
[too much|extra]
- [there is|I see] a [duplicate|second] [payment|charge|debit] [of {amount}|] [from you|on my card|pending]
+ [the first|one] [was|went through] at {time}, the [second|other] [minutes|an hour] later
+ [my bank|the bank] says [both are booked|only you can release it|it's not a reservation]
? [please|can you|could you] [refund|return|send back] [one of them|the second charge|the difference|{amount}]?
? when [will I|do I] get [my money|the extra charge] back?
@ payment_failed | Billing | Payment declined
= The payment was refused by the bank, so nothing was collected. Please check limit, address and expiry of the card.
= Trying again with another payment method, or after calling the bank, usually helps.
! payment [failed|declined|not going through|error]
! [card|PayPal] [declined|not accepted]
- [my|the] payment [keeps failing|was declined|does not go through|gets rejected][ at checkout| every time|]
- [my|the] [card|credit card|Visa|Mastercard|PayPal] is [declined|not accepted|refused|rejected] [though there is \
money on it|for no reason|]
- [I can't|cannot|unable to] [pay|complete the payment|add my card]
- [it says|error] [transaction failed|payment could not be processed|card error {ddd}] [when I pay|at the last step|]
- [I tried to pay|tried paying] {amount} and [got an error|it failed|the page hangs]
+ [the card|it] works [everywhere else|in every other shop|fine elsewhere]
+ [my bank|the bank] [sees no attempt|says it's on your side|did not block anything]
+ [tried|I tried] [{2-5} cards|two different cards|another browser]
? [can you|what can you] [check why|see the reason|tell me what's wrong]?
? is there another way to pay?
@ promo_code | Offers | Promo code not working
= Please check the end date, the minimum spend and whether the code is for first purchases only.
= As a gesture we have added a code of the same value to your account; it is valid for 14 days.
! [promo|discount|voucher|coupon] code [not working|invalid|problem]
! [discount|voucher] [missing|not applied]
- [my|the] [promo|discount|voucher|coupon] [code|] {LL}{LL}{10-30} [does not work|is invalid|isn't accepted|is rejected]
- [the|my] {10-30}% [discount|off|offer] [was not applied|is missing|did not show up] [at checkout|on the total|]
- [I got|got] a [voucher|gift card|coupon] [for my birthday|from you by mail] [and it says expired|that can't be \
redeemed|but no field to enter it]
- [forgot|I forgot] to [enter|use] my [discount|promo|voucher] code [when ordering|before paying]
- the [referral|friend] [bonus|credit|discount] [never arrived|is not there|was not credited]
+ [it is|the mail says it is] valid until {future}
+ [the minimum|my total] is [{amount}|well above the minimum]
? [can you|could you|please] [apply it|add the discount|credit the difference|send a new code]?
? why [is it|does it say] [invalid|expired|not applicable]?
@ complaint | Feedback | Complaint about our service | callback
= We are sorry for the experience you describe; this is not how we want to treat you. I have passed it to our team lead.
= You will hear from us within two working days with what we found and what we will do about it.
! [complaint|formal complaint|very disappointed]
! [terrible|poor|bad] [service|support|experience]
- [I want|I would like|I wish] to [make|file|lodge] [a|an official|a formal] complaint [about your service|about \
{agent}|]
- [your|the] [support|customer service|agent on the phone] was [rude|unhelpful|useless|dismissive][ to me on {day}|]
- [this is|what a] [the worst|terrible|appalling] [service|experience|support] [I ever had|from a company like yours|]
- [nobody|no one] [answers|takes responsibility|cares], I [get passed around|am sent from one person to the next|hear \
different things each time]
- I am [extremely|very|deeply] [disappointed|unhappy|dissatisfied] with [how this was handled|the treatment|your team]
+ [I told|told] this story to {3-6} [different people|agents] [by now|]
+ [I will|I'm going to] [leave a review|tell everyone|go to the ombudsman|cancel]
? [I want|I expect] [an apology|to speak to a manager|compensation|this to be escalated]
? who [is responsible|can I escalate this to]?
@ callback | Feedback | Call me back
= Happy to call you. Please tell us two times that suit you and a number, and we will ring from a withheld number.
= Our phone lines are also open on weekdays from 8 am to 6 pm.
! [call me|callback|call back] [please|request|]
! [phone number|speak to a person|talk to someone]
- [please|can someone] [call me|ring me|give me a call|phone me] [back |][on {phone}|tomorrow at {time}|on {day}]
- I [want|would like|need] to [talk|speak] to [a human|a real person|somebody|someone from your team]
- [is there|do you have] a [phone number|hotline|number] I can [call|ring]
- [I'd rather|I prefer to] [explain this|discuss it|sort this] [on the phone|by phone|in a call]
- [I missed|missed] your call [at {time}|on {day}|earlier] and [can't call back|the number is withheld]
+ [best|I'm free|reachable] [after {time}|between 9 and 5|on {day}]
+ [the chat bot|your bot] [goes in circles|does not understand me]
? [when|what time] [can you call|will you ring]?
? [please|can you] call [today|this week|as soon as possible]?
@ praise | Feedback | Thank-you and praise
= What a lovely message, thank you! I have shared it with the whole team.
= If you have a minute, a public review helps us a lot.
! [thank you|great service|kudos|well done]
! [compliment|happy customer]
- [just|I just] [wanted to say|wanted to send a] [thank you|thanks|kudos] [to {agent}|to the team|for the quick help]
- [everything|it all] [worked out|is fine now|got solved], [great|fantastic|excellent] [job|support|service]
- {agent} was [so|really|incredibly] [helpful|kind|patient|friendly][ on the phone| in the chat|]
- [love|I love] [the|your] [service|team|attitude], [best|nicest] [support|company] [ever|I dealt with]
- [this was|that was] [the best|super|surprisingly good] [customer service|help] [I had in years|, five stars]
+ [please|do] pass this on to [{agent}|the boss|the team]
+ [I will|I'll] [recommend you|be back|tell my friends]
? [keep it up|no need to answer|no reply needed]
"""
