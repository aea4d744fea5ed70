"""English SaaS: a team's project and document tool."""

PACK = """
$ product: Boards; Timesheets; Docs; Forms; Planner; Inbox; Roadmap; Reports; Automations; Wiki; Whiteboard; Goals
$ order: workspace {LL}{dddd}; invoice INV-{ddddd}; account {order_no}; ticket {order_no}; workspace {order_no}
$ integration: Slack; Jira; Google Calendar; Teams; Salesforce; Zapier; GitHub; HubSpot; Outlook; Notion
$ plan: Starter; Team; Business; Pro; Enterprise; Free
$ format: CSV; Excel; PDF; JSON
@ add_users | Team | Invite and manage users | roles
= Admins invite people under Settings, Members. An invitation is valid for seven days and can be sent again there.
= Every member needs a seat; seats are added to the next invoice pro rata.
! [invite|add|remove] [users|members|people]
! [invitation|seat] [problem|question]
- [how do I|I want to|can't find where to] [invite|add] [a new colleague|{2-20} people|users|team members] [to our \
workspace|to {product}|]
- [the|our] invitation [to {email}|for {first}] [never arrived|has expired|leads to an error]
- [someone|{first}] [left the company|no longer works here], how [do we|can I] [remove|deactivate] [them|the user|the \
seat]
- [it says|we get] [no seats left|seat limit reached] [when inviting|although we pay for {10-60}|]
- [a colleague|{first}] [can't join|cannot accept the invite to] [the|our] workspace
+ we [are|have] {5-90} [people|seats] on [the|] {plan} [plan|]
? [can you|please] [add them|resend the invite|free the seat] [for us|]?
? do we pay for [guests|inactive users]?
@ roles | Team | Roles and permissions | add_users
= Roles decide what members see and edit; only owners can hand out the owner role. See Settings, Roles.
= If the last owner has left, we need a short letter from the company to pass the workspace on.
! [permission|access|role] [problem|denied|question]
! [change|transfer] [owner|admin]
- [I|{first}|a colleague] [can't|cannot] [see|edit|open] [the|our] {product} [any more|though we are admins|], [it \
says|error] [access denied|no permission]
- [how do I|can we] [make {first} an admin|change the owner|give read-only access|limit what guests see] [in {product}|]
- [our|the] [admin|owner] [left|quit] and [nobody can|we can't] [change settings|manage members|access billing]
- [what|which] role [do I need|is needed] to [edit|share|delete] [things in|] {product}
- [guests|members] [can see|have access to] [{product}|private folders] [they should not|by mistake]
+ [my role is|I am] [admin|editor|owner|guest]
? [can you|please] [change|transfer|check] [the role|ownership|permissions]?
? is [that|this] possible on {plan}?
@ upgrade | Plan | Upgrade or change plan | downgrade
= You can change the plan any time under Billing, Plan; an upgrade works at once and is charged pro rata.
= A comparison of all plans is on our pricing page.
! [upgrade|change|switch] [plan|to {plan}]
! [pricing|plan] question
- [we want|I'd like|how do I] to [upgrade|move|switch] [from {plan} |]to [the|] {plan2} [plan|]
- [what|which] [is included|features come] [in|with] {plan} [compared to|versus] {plan2}
- [we need|is] {product} [available|included] [on|in] [the|our] {plan} plan
- [is there|do you have] a [yearly|nonprofit|education|startup] [discount|price|plan] [for {10-80} users|]
- [what would|how much does] {plan} cost [for {5-90} seats|per year|if we upgrade mid-month]
+ [we are|currently] {5-90} users on {plan}
? [can you|could you] [send a quote|switch us|explain the difference]?
? [does it|will the change] work immediately?
@ downgrade | Plan | Cancel or downgrade | upgrade
= You may cancel until the last day of the period under Billing, Plan; your data stays readable for 60 days.
= Payments for a period that has begun are not returned.
! cancel [subscription|our plan|renewal]
! [downgrade|stop|end] [subscription|plan]
- [please|we want to|I need to] cancel [our|my|the] [subscription|{plan} plan|workspace|contract][ at the end of the \
month|]
- [how do we|I want to] [downgrade|go back|move down] to [the|] [Free|Starter] [plan|]
- [you|we] [renewed|were renewed] [automatically|for another year] [but we wanted to stop|without notice]
- [we no longer|we don't] [use|need] [{product}|{company}|so many seats], [please end it|stop the renewal]
- [what happens|do we lose] [to our data|everything] [if|when] we [cancel|downgrade|stop paying]
+ [the renewal|next payment] is [due on {future}|in {days}]
? [please|can you] confirm [the cancellation|that nothing will be charged]?
? can we get [the rest|{amount}] back?
@ trial | Plan | Trial extension
= We have added 14 days to your trial; all features stay open in that time.
= If you like a guided tour, book a slot with our onboarding team.
! [trial|test period] [extension|ended|question]
! extend [our|my] trial
- [our|my|the] trial [ended|ends|expires] [on {date}|tomorrow|too early] and [we had no time|we haven't tested \
{product}]
- [can we|could you] [extend|prolong] [the|our] trial [by {days}|a bit|]
- [is|are] [{product}|all features|{integration}] [part of|included in] the trial
- [do I|must we] [enter|need] a credit card [for the trial|to test]
- [what happens|is our data kept] when the trial [is over|runs out]
? [is that|would that be] possible?
? [can we|may I] [restart|get a second trial|have another week]?
@ integration_broken | Integrations | Integration stopped working | integration_setup
= Please disconnect the integration under Settings, Apps, and connect it again as an admin; that renews the token.
= If it still fails, send us the time of the last success and we will read the logs.
! {integration} [not syncing|sync broken|disconnected]
! integration [error|stopped working]
- [the|our] {integration} [integration|sync|connection] [stopped working|is broken|fails|no longer syncs] [since \
{day}|since the update|]
- [{product}|tasks|events] [do not|don't] [sync|show up|appear] [in|with|from] {integration} [any more|]
- [we get|{integration} shows] [error {ddd}|token expired|authorization failed] [on every sync|when connecting|]
- {integration} [creates|sends] [duplicates|everything twice|old items again] [in {product}|]
- [notifications|messages] [no longer|don't] [reach|come to] [our|the] {integration} [channel|]
+ [we reconnected|reconnecting] [it|] [twice|{2-4} times] [did not help|without effect]
? [can you|please] [check the logs|look at the connection|fix the sync]?
? is there an outage?
@ integration_setup | Integrations | Set up an integration | integration_broken
= Apps are connected under Settings, Apps; you need to be an admin in both systems. The guide is linked there.
= For everything that is not in the list there are our API and Zapier.
! [connect|set up|link] {integration}
! {integration} [setup|integration|question]
- [how do I|we want to|can you help us] [connect|link|integrate|set up] {integration} [with|and|to] {product}
- [does|do you] {product} [work with|support|integrate with] {integration}
- [where|I can't find where to] [do I enter|to put] the [key|webhook|URL] for {integration}
- [can|is it possible that] {integration} [events|messages|contacts] [create|become|update] [tasks|items] in {product}
- [which|what] [permissions|scopes] does the {integration} [app|integration] [need|ask for] [and why|]
? [is there|do you have] a [guide|tutorial|video]?
? [can someone|could you] walk us through it?
@ api | Integrations | API keys and limits
= Keys are made under Settings, API. The limit is 100 calls a minute; a 429 answer tells how long to wait.
= Our reference documents every field and has examples in several languages.
! API [question|error|limit|key]
! [rate limit|webhook|endpoint]
- [the|your] API [returns|answers with|gives] [401|403|429|500|a timeout] [for|on] [every call|our \
requests|/v{1-3}/items]
- [where|how] [do I|can we] [get|create|rotate] an API [key|token]
- [what is|can you raise] the rate limit [for our account|on {plan}|of the API]
- [our|the] webhook [is not called|fires twice|stopped] [since {date}|when a task changes|]
- [is there|do you have] an [endpoint|API call] [to export|for] {product}
- [the|your] API docs [are wrong about|do not mention] [paging|the date format|this field]
+ [request|trace] id {LL}{dddddd}
? [can you|please] [check the logs|raise it|point me to the docs]?
@ export_data | Data | Export our data | import_data
= An export as CSV or JSON is under Settings, Data; large workspaces get a mail with the link within a day.
= Attachments come as a separate archive.
! [export|backup|download] [data|of {product}]
! {format} export
- [how do we|I need to|we want to] [export|download|back up] [all our data|{product}|everything|our tasks] [as \
{format}|to {format}|]
- [the|our] {format} export [is empty|never finishes|fails|misses half of the rows|has broken characters]
- [the export|download] [link|mail] [never came|has expired]
- [can I|is there a way to] [schedule|automate] [exports|backups] [of {product}|to {format}|]
- [we need|our auditor wants] [a copy of|] all [records|data] [in|as] {format}
? [can you|please] [run it for us|send the file|check the job]?
? does it include attachments?
@ import_data | Data | Import from another tool | export_data
= Our importer reads CSV and Excel and the exports of the common tools; the first row has to hold the column names.
= Send us the file if rows are refused and we will look at it.
! import [error|from {integration}|{format}|question]
! [migrate|move] [our data|from {integration}]
- [how do I|we want to] [import|migrate|move] [our data|tasks|{20-900} rows|everything] from [{integration}|a \
{format} file|the old tool]
- [the|our] import [fails|stops|hangs] [at row {20-900}|at {10-90}%|with error {ddd}|]
- [after|since] the import [dates are wrong|names are missing|everything is doubled|fields are mixed up]
- [what|which] [format|columns] does the {format} [file|import] [need|have to have]
- [can you|do you] [migrate|import] [it for us|our old {integration} data]
+ [sample|the file] [attached|has {200-900} lines]
? [can you|please] [have a look|tell me what's wrong|undo the import]?
@ restore | Data | Restore deleted items
= Deleted items stay in the bin for 30 days, from where any editor can restore them.
= After that we can recover a workspace from backup only as a whole; tell us the day and time.
! [restore|recover|undelete] [deleted items|{product}|data]
! [accidentally deleted|data loss|items gone]
- [I|a colleague|{first}|somebody] [accidentally |][deleted|removed|overwrote] [our|the|a whole] \
[{product}|project|folder|board]
- [our|the|all] [{product}|tasks|files|comments] [are gone|disappeared|vanished] [since {day}|overnight|]
- [can you|how do I] [restore|recover|bring back] [a deleted|the] [project|folder|item|version of {date}]
- the [bin|trash] is empty [but|although] [we deleted it|it was removed] [only|] [yesterday|{days} ago]
+ [it was|last seen] on {date} [at {time}|]
? [please|can you] [restore it|get it back|check the backup]?
? is [it|everything] lost?
@ slow | Technical | Slow or unavailable | bug
= We are looking into slow answers; our status page shows incidents live.
= Please send your region, the time and, if you can, a network recording of the browser.
! [slow|outage|down|not loading]
! [performance|timeout] [problem|issue]
- [{product}|{company}|the app|everything] is [very|extremely|so] slow [today|since {day}|in the mornings|]
- [{product}|the site|the page] [does not load|keeps loading|times out|is down] [for all of us|in {browser}|]
- [we get|I see] [error 50{2-4}|a white page|a spinner] [when opening|on] {product}
- [is there|are you having] [an outage|maintenance|server problems] [right now|today|]
- [loading|opening|saving] [a|in] {product} takes {10-90} seconds
+ [{5-40}|all] [users|colleagues] [in {city}|here] are affected
? [when|what time] will it be [fixed|back]?
? what is [going on|the status]?
@ bug | Technical | Report a bug | slow
= Thank you for the report; we could reproduce it and have given it to the developers.
= You will get a note when a fix is out. Until then a private window often helps.
! bug [in|with] {product}
! [error|something broken] in {product}
- [I found|there is|we have] a bug in {product}: [the button does nothing|dates shift by a day|filters reset|text \
disappears]
- [since|after] the [last|latest] [update|release] {product} [crashes|shows wrong numbers|does not save|looks broken]
- [when I|every time I] [click save|drag a card|open {product}|paste text] [it crashes|nothing happens|an error pops up]
- [the|my] [sum|chart|total|date] in {product} is [wrong|off by one|not updated]
- {product} [crashes|freezes] [in {browser}|on my {device}|]
+ [steps|to reproduce]: open {product}, [click|select] [filter|new|share], [save|reload]
? [can you|please] [fix it|look at it|confirm the bug]?
? is there a workaround?
@ sso | Security | Single sign-on
= Single sign-on is part of Business and Enterprise. The metadata are under Settings, Security.
= A wrong name-ID format is the most common cause of errors; it must be the e-mail address.
! [SSO|SAML|single sign-on] [setup|error|question]
! [Okta|Azure AD|Entra] [login|setup]
- [how do we|we want to] [set up|configure|enable] [SSO|SAML|single sign-on] [with|via] [Okta|Azure AD|Google]
- [our|the] [SSO|SAML] [login|setup] [fails|returns an error|loops] [since the certificate changed|for new users|]
- [is|do you support] [SSO|SCIM|SAML] [available|included] on {plan}
- [the|our] [SAML|identity provider] certificate [expires|expired] [on {date}|soon] and [must be replaced|nobody can \
sign in]
- [users|people] are [not created|created twice] by [SCIM|the directory sync]
? [can you|please] [check our metadata|send the guide|join a call]?
@ security_review | Security | Security questionnaire and contracts
= Our security pack with certificates, the list of processors and the signed agreement is attached.
= For longer questionnaires please allow ten working days.
! [security|vendor] [questionnaire|review|assessment]
! [DPA|SOC 2|ISO certificate] [request|needed]
- [our|the] [security team|legal|auditor] [needs|asks for] [your SOC 2 report|a signed DPA|an ISO certificate|a pen \
test report]
- [please|could you] [fill in|complete|answer] [the attached|our] [vendor|security] questionnaire [by {date}|]
- [where|in which country] [is our data|are your servers] [stored|hosted|located]
- [do you|does {company}] [encrypt data at rest|have a bug bounty|keep backups|use subprocessors]
- [we need|please send] [a|the] [data processing agreement|DPA|list of subprocessors] [signed|]
? who can [sign|answer] [this|that]?
@ feature_request | Product | Feature request
= Thank you for the idea! I have added your vote to the request on our public roadmap.
= We can't promise a date, but we read every comment there.
! [feature|suggestion|idea] [request|for {product}]
! [wish|missing feature]
- [it would be|would be] [great|nice|helpful] [if|to] [{product} could|have] [dark mode|recurring items|bulk \
edit|templates|keyboard shortcuts]
- [please|could you] add [dark mode|bulk edit|subtasks|a calendar view|offline mode] to {product}
- [we miss|we really miss] [a way to|an option to] [sort|colour|lock|duplicate] [items|cards] in {product}
- [is|when is] [dark mode|offline mode|a mobile version of {product}] [planned|coming|on the roadmap]
- [feature request|suggestion|idea]: [let us|allow to] [hide|pin|merge|copy] [columns|cards|pages]
? is [this|that] [planned|on your roadmap]?
@ notifications | Product | Too many or no notifications
= Notifications are set per member under Profile, Notifications, and per board with the bell.
= If mails are missing altogether, your mail server may be blocking us.
! [notifications|email alerts|reminders] [missing|too many]
! [mute|turn off|no] notifications
- [I|we|our team] [no longer|don't] [get|receive] [notifications|reminders|mention alerts] [from|for] {product}
- [I get|we're flooded with] [too many|hundreds of] [notifications|alerts|reminder mails] [from {product}|a day|]
- [how do I|I want to] [turn off|mute|change] [notifications|alerts|the daily digest] [for {product}|]
- [reminders|notifications] [come|arrive] [{2-9} hours late|at night|in the wrong time zone]
- [push|desktop] notifications [do not work|are silent] on my {device}
? where [is|can I find] the setting?
? [can you|please] [switch them off|check why]?
"""
