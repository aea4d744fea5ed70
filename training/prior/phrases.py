"""What `training.prior.requests` puts together: patterns, and the things, actions and circumstances that fill them.

Parts are separated by semicolons.
"""

from __future__ import annotations

# By what they have to do with: things of one request mostly belong together.
THINGS = {
    "money": """
        account; bank account; savings account; joint account; card; debit card; credit card; virtual card; prepaid
        card; gift card; pin; passcode; cash; coins; cheque; direct debit; standing order; transfer; wire transfer;
        payment; card payment; contactless payment; top up; top-up limit; balance; account balance; statement;
        exchange rate; currency; foreign currency; fee; extra fee; hidden charge; interest rate; loan; car loan;
        mortgage; overdraft; credit score; credit limit; salary; pay day; paycheck; tax; income tax; insurance;
        insurance claim; investment; shares; stock price; pension; receipt; bill; electricity bill; rent; deposit;
        withdrawal; cash machine; atm; iban; routing number; account number; spending limit; transaction; unknown
        transaction; refund; chargeback; beneficiary; recipient; identity check; proof of identity; source of funds;
        apple pay; google pay; paypal; bitcoin; invoice; budget; donation; reward points; cashback; discount
    """,
    "shop": """
        order; parcel; package; delivery; delivery date; delivery address; courier; tracking number; shipping cost;
        express shipping; return; return label; exchange; refund; warranty; warranty claim; guarantee; product; item;
        size; colour; voucher; coupon; promo code; discount code; sale; price; price match; stock; pre-order;
        subscription; membership; loyalty card; store; nearest shop; opening hours; showroom; catalogue; basket;
        checkout; payment method; cash on delivery; instalments; emi; customer care; phone number; call back;
        complaint; damaged item; wrong item; missing part; spare part; shoes; shirt; dress; jacket; phone; phone case;
        laptop; charger; headphones; television; fridge; washing machine; oven; vacuum cleaner; sofa; bed; mattress;
        pillow; mattress topper; bed sheet; curtain; table; chair; lamp; toy; book; perfume; lipstick; shampoo;
        vitamin; protein powder; protein bar; supplement; medicine; flowers; present; gift wrap; franchise; dealership
    """,
    "account": """
        password; username; email; email address; phone number; home address; name; surname; profile; profile picture;
        login; log in code; verification code; two-factor authentication; security question; app; website; account
        settings; notification; newsletter; privacy; personal data; data export; language setting; user; team; seat;
        role; permission; admin rights; plan; free trial; upgrade; invoice; api key; integration; webhook; dashboard;
        report; workspace; backup; error message; bug; crash; sync; update; download; upload; file; attachment; spam;
        fraud; hacked account; stolen phone; lost phone; blocked account; bonus; referral; referral code; invite a
        friend; winnings; contest; league; team name; points; leaderboard; tournament; coins
    """,
    "phone": """
        sim card; esim; mobile data; data plan; roaming; signal; network; coverage; wifi; router; modem; broadband;
        internet connection; internet speed; landline; voicemail; ringtone; text message; call; missed call; caller;
        contact; phone contract; number porting; battery; screen; camera; bluetooth; speaker; headset; keyboard;
        printer; computer
    """,
    "travel": """
        flight; plane ticket; boarding pass; seat; window seat; luggage; lost luggage; carry-on; hotel; hotel room;
        booking; reservation; cancellation; check-in; airport; gate; layover; train; train ticket; bus; taxi; uber;
        car rental; rental car; car; oil change; tire; tire pressure; tyre; gas; petrol; mileage; fuel; parking;
        traffic; accident; route; directions; map; distance; passport; visa; vaccination; travel warning; travel
        insurance; tour; museum; beach; plug type; time zone; cruise; border; driver; driving licence; jump start;
        windscreen; engine light
    """,
    "food": """
        pizza; burger; salad; soup; chicken; fish; rice; pasta; bread; cheese; eggs; milk; coffee; tea; wine; beer;
        cake; chocolate; sugar; salt; recipe; ingredient; calories; nutrition; dinner; lunch; breakfast; restaurant;
        restaurant reservation; restaurant reviews; menu; table for two; takeaway; delivery driver; cold food; missing
        meal; tip; allergy; grocery list; shopping list; cooking time; expiry date; meal; snack; oven temperature;
        substitute for butter
    """,
    "home": """
        light; lights; lamp; kitchen light; bedroom lights; brightness; thermostat; heating; temperature; air
        conditioning; door; front door; lock; window; garage; alarm; smoke alarm; camera; vacuum; robot vacuum; coffee
        machine; tv; socket; plug; switch; fan; blinds; shower; bath; dishwasher; garden; plant; fence; cleaning;
        electrician; plumber; neighbour; rubbish; radio; volume; music
    """,
    "assistant": """
        alarm; wake up call; timer; reminder; calendar; event; meeting; meeting room; appointment; birthday; holiday;
        next day off; pto request; vacation days; to do list; task; list; note; song; playlist; album; artist; radio
        station; podcast; audiobook; movie; film; series; cinema; game; chess; joke; riddle; story; fact; quote; news;
        headlines; sports result; football score; weather; forecast; rain; snow; sunshine; umbrella; time; date; day
        of the week; sunrise; definition; spelling; synonym; translation; word; language; maths problem; square root;
        sum; percentage; unit conversion; measurement; stock market; email; inbox; message; tweet; facebook post; coin
        flip; dice; name; voice; accent; hobby; pet; age; boss; answer; question; conversation; speed; whisper mode;
        colour; shirt colour; text; social media; contact; picture; video; festival; theatre; concert; local event;
        bus schedule
    """,
    "health": """
        doctor; dentist; prescription; headache; fever; medicine; dose; side effects; blood test; symptoms; pharmacy;
        vaccine; gym; diet; weight; muscle; sleep; back pain; allergy; pregnancy; therapy; hospital; nurse; glasses;
        insurance card; heart rate
    """,
    "work": """
        job; application; interview; contract; salary; payslip; w2; tax form; day off; sick leave; holiday; manager;
        colleague; office; training; course; school; exam; certificate; university; homework; teacher; student;
        library; book; research; project; deadline
    """,
}
ACTIONS = """
    cancel; change; check; find; get; buy; order; return; pay; send; receive; track; open; close; delete; remove; add;
    update; edit; activate; deactivate; block; unblock; freeze; lock; unlock; reset; set; set up; start; stop; pause;
    resume; turn on; turn off; turn up; turn down; switch on; switch off; increase; decrease; raise; lower; dim; show;
    tell me about; explain; describe; list; read; play; skip; repeat; save; record; share; print; download; upload;
    install; connect; link; unlink; transfer; withdraw; deposit; top up; exchange; convert; replace; repair; fix;
    clean; book; reserve; schedule; reschedule; confirm; verify; prove; dispute; report; complain about; claim; apply
    for; sign up for; log in to; register; subscribe to; unsubscribe from; renew; extend; upgrade; downgrade; compare;
    recommend; rate; review; cook; make; prepare; bake; call; text; email; reply to; answer; forward; mute; ignore;
    name; rename; remember; forget; remind me about; look up; search for; calculate; measure; count; translate; spell;
    define; pronounce; learn; teach me; like; love; hate; need; lose; use; keep; move; visit; reach; request; receive;
    refuse; decline
"""
STATES = """
    not working; broken; lost; stolen; late; missing; wrong; blocked; declined; rejected; pending; cancelled;
    reverted; failed; stuck; too slow; too expensive; too loud; too dark; too cold; expired; out of stock; damaged;
    swallowed; compromised; still not here; on hold; frozen; not showing up; not recognised; charged twice; overdue;
    free; available; available abroad; safe; ready; delivered; refunded; correct; different; low; high; empty; full;
    open; closed; new; locked; cheaper; due; supported; accepted everywhere; disposable; automatic; bad; great; gone;
    disabled; delayed; overcharged; unknown
"""
PLACES = """
    paris; london; new york; berlin; tokyo; india; delhi; mumbai; pune; bangalore; spain; mexico; canada; china;
    france; texas; california; chicago; boston; brazil; europe; the us; the uk; russia; australia; here; my city; the
    kitchen; the living room; the bedroom; abroad; the airport; the shop; my office; home
"""
TIMES = """
    today; tomorrow; yesterday; tonight; this morning; next week; last week; on monday; on friday; this weekend; next
    month; last month; in two days; at five pm; at noon; for an hour; every day; in march; in december; since tuesday;
    for three days; two weeks ago; right now; soon; in ten minutes; at 7 am
"""
PEOPLE = """
    my wife; my husband; my mom; dad; my sister; my brother; a friend; my friend; my boss; john; mary; david; my son;
    my daughter; someone; my landlord; the driver; a customer; my kids; the seller; you; the bank; a merchant; my team
"""
AMOUNTS = """
    ten; twenty dollars; 50 euros; 100; one pound; five hundred rupees; two; three; half; a lot of; some; more; 15
    percent; 1 litre; two cups; a few; 20; 1000
"""
# `do` is an action, `thing`, `state`, `where`, `when`, `who` and `amount` are what they say.
PATTERNS = """
    how do i {do} my {thing}; how can i {do} the {thing}; how to {do} {thing}; can i {do} my {thing}; can you {do} my
    {thing}; can i {do} {thing} {when}; i want to {do} my {thing}; i need to {do} a {thing}; i would like to {do} the
    {thing}; please {do} the {thing}; {do} the {thing}; {do} my {thing}; {do} {thing}; {do} {amount} {thing}; {do} the
    {thing} {when}; {do} a {thing} for {who}; {do} the {thing} in {where}; help me {do} my {thing}; is it possible to
    {do} a {thing}; where can i {do} my {thing}; where do i {do} {thing}; when can i {do} the {thing}; why can't i
    {do} my {thing}; why can i not {do} the {thing}; i can't {do} my {thing}; i am unable to {do} my {thing}; i tried
    to {do} my {thing} but it is {state}; what happens if i {do} my {thing}; do i have to {do} the {thing}; do you
    {do} {thing}; should i {do} my {thing}; i forgot to {do} my {thing}; i already {do} my {thing}; you did not {do}
    my {thing}; who will {do} my {thing}; {who} wants to {do} the {thing}; does {who} have to {do} the {thing}; my
    {thing} is {state}; the {thing} is {state}; why is my {thing} {state}; why was my {thing} {state}; is my {thing}
    {state}; is the {thing} {state} {when}; my {thing} was {state} {when}; i think my {thing} is {state}; what should
    i do if my {thing} is {state}; what if the {thing} is {state}; the {thing} i got is {state}; my {thing} and
    {thing} are {state}; it says my {thing} is {state}; {thing} {state}; {thing} {state} what to do; where is my
    {thing}; where is the {thing}; where is the nearest {thing}; when will my {thing} be {state}; when does the
    {thing} arrive; when is my {thing}; when is the next {thing} in {where}; when do i get my {thing}; what is my
    {thing}; what is the {thing}; what is a {thing}; what's the {thing} in {where}; what is the {thing} for {thing};
    what is the {thing} of my {thing}; what {thing} do you have; what kind of {thing} is it; which {thing} do you
    support; which {thing} is better for {thing}; which {thing} should i buy; how much is the {thing}; how much does a
    {thing} cost; how much {thing} is in a {thing}; how much {thing} do i have; how many {thing} do i have; how many
    {thing} can i {do}; how long does the {thing} take; how long will the {thing} last; how long is the {thing}
    {state}; how far is the {thing}; how old is the {thing}; how is the {thing} {when}; how good is the {thing} in
    {where}; how does the {thing} work; how does {thing} help; is there a {thing}; is there any {thing} in {where}; is
    there a {thing} for {thing}; are there any {thing} {when}; do you have a {thing}; do you have {thing} in {where};
    do you sell {thing}; do you offer {thing}; do you accept {thing}; does the {thing} have a {thing}; do i need a
    {thing}; do i need a {thing} to {do} {thing}; do i have any {thing}; i have a {thing}; i have no {thing}; i have a
    problem with my {thing}; i have a question about the {thing}; i need a {thing}; i need a {thing} for my {thing}; i
    need {thing} {when}; i want a {thing}; i want {amount} {thing}; i lost my {thing}; i found my {thing}; i forgot my
    {thing}; i don't have a {thing}; i didn't get my {thing}; i did not receive the {thing}; i haven't received my
    {thing} yet; i got the wrong {thing}; i never got a {thing}; i don't recognise this {thing}; there is a {thing} on
    my {thing}; there is a {thing} i didn't make; i was charged for {thing}; i was charged a {thing} for my {thing};
    you charged me {amount} for the {thing}; {who} stole my {thing}; {who} sent me a {thing}; someone used my {thing};
    {who} has my {thing}; is {who} in {where}; i like this {thing}; i hate this {thing}; i love {thing}; the {thing}
    is good for {thing}; is {thing} good for {thing}; is the {thing} safe with {thing}; can i get a {thing}; can i get
    a {thing} in {where}; can i have more than one {thing}; can i use my {thing} in {where}; can i use the {thing} for
    {thing}; can {who} use my {thing}; could you give me the {thing}; give me the {thing}; show me the {thing}; show
    me {thing} in {where}; show all my {thing}; tell me the {thing}; tell me about the {thing} {when}; tell {who}
    about the {thing}; let me know about my {thing}; find me a {thing}; find {thing} near {where}; find a {thing} with
    {thing}; look for {thing}; remind me of the {thing} {when}; set a {thing} for {when}; set the {thing} to {amount};
    put {thing} on my {thing}; add {thing} to the {thing}; remove the {thing} from my {thing}; make a {thing} {when};
    make it {state}; book a {thing} to {where}; book a {thing} from {where} to {where} {when}; send {amount} to {who};
    transfer {amount} from {thing} to {thing}; play {thing}; play some {thing} by {who}; turn the {thing} {state};
    call {who}; text {who} that the {thing} is {state}; email {who} about {thing}; what do you know about {thing};
    what does {thing} mean; what did {who} say about the {thing}; who is {who}; who made the {thing}; what can i do
    about my {thing}; what can i use instead of {thing}; what are the {thing} of {thing}; what are the best {thing} in
    {where}; what time is it in {where}; what time is the {thing}; what day is the {thing}; what documents do i need
    for the {thing}; who do i contact about a {thing}; difference between {thing} and {thing}; {thing} or {thing};
    {thing} please; {thing}; {thing} {thing}; {thing} in {where}; {thing} for {who}; {thing} {when}; {thing} price;
    {thing} of the {thing}; {thing} problem; {thing} details; about {thing}; need {thing}; want to {do} {thing}; no
    {thing}; new {thing}; hi i {do} a {thing} {when} and it is {state}; hello, my {thing} has not come and i want a
    {thing}; my {thing} didn't come with a {thing}; i ordered a {thing} {when} but the {thing} is {state}; i bought
    {thing} and got {thing}; after the {thing} my {thing} is {state}; i moved to {where} and need to {do} my {thing};
    i am in {where} and my {thing} is {state}; i'm travelling to {where} {when}; it has been a week and my {thing} is
    {state}; the app does not let me {do} the {thing}; your {thing} is {state} {when}; thanks for the {thing}; that
    {thing} was {state}; are you a {thing}; are you {state}; do you like {thing}; can you speak to {who}; what is your
    {thing}; yes {do} it; no don't {do} the {thing}; maybe; i don't know; never mind; say that again; good morning;
    hello there; goodbye; thank you; what can you do; talk slower; i want to speak to a person
"""
