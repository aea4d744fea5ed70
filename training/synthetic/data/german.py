"""German: surroundings, shared intents, e-commerce."""

PHRASES = """
$ first: Anke; Björn; Clara; Dieter; Elif; Florian; Gesa; Jörg; Katrin; Lars; Mareike; Nils; Petra; Rüdiger; Sönke; Ute
$ last: Ahrens; Böttcher; Claußen; Dörner; Eggers; Fröhlich; Günther; Hübner; Jäger; Köhler; Möller; Schäfer; Weiß
$ agent: Frau Möller; Herr Krüger; Jana; Tobias; Frau Yildiz
$ city: München; Köln; Leipzig; Graz; Zürich; Lübeck; Göttingen; Kiel; Würzburg; Linz
$ day: Montag; Dienstag; Mittwoch; Donnerstag; Freitag; Samstag
$ time: {8-19} Uhr; {8-19}:[00|15|30|45] Uhr; kurz nach {2-9}
$ amount: {5-180} Euro; {12-320},{dd} €; {4-90},{dd} EUR; {6-90}€
$ days: {2-9} Tagen; einer Woche; zwei Wochen; {3-6} Wochen; gut zehn Tagen
$ device: iPhone; Handy; Samsung; Laptop; Tablet; Rechner
$ browser: Chrome; Firefox; Safari; Edge; der App
$ phone: 0{ddd} {ddddddd}; +49 {ddd} {dddddddd}; 0{dddd}/{dddddd}
$ street: Lindenstraße {1-120}; Mühlweg {1-60}; Am Bach {2-30}; Goethestr. {1-99}; Größere Gasse {1-20}
% greeting
- [Hallo|Guten Tag|Guten Morgen|Moin|Servus|Grüß Gott][| liebes Team| {company}-Team| zusammen],
- Sehr geehrte Damen und Herren,
- Liebes [Team|{company}-Team],
% chat_greeting
- [hallo|hi|moin|guten tag|servus]
% opening
- ich [hoffe|wünsche], [es geht Ihnen gut|Sie hatten ein schönes Wochenende|Sie können mir helfen]
- ich bin seit [{2-9} Jahren|Langem|20{10-22}] Kund[e|in] [bei Ihnen|] und [war immer zufrieden|musste noch nie \
schreiben]
- [ich habe|habe] [schon|bereits] [angerufen|die Hilfeseiten gelesen|den Chat versucht], [leider ohne Erfolg|aber \
niemand konnte helfen]
- [das ist|dies ist] [schon|mittlerweile] [meine zweite|die dritte] [Mail|Nachricht|Anfrage] [dazu|in dieser Sache]
- [kurze|nur eine kurze] Frage [von mir|heute|]
- am {day} habe ich mit {agent} gesprochen und [sollte mich hier melden|bekam diese Adresse]
% aside
- hier in {city} [regnet es seit Tagen|ist es brütend heiß] und [meine Geduld ist am Ende|ich komme kaum raus]
- [meine Frau|mein Mann|meine Nachbarin|ein Kollege] hat [Sie|den Laden] [empfohlen|mir ans Herz gelegt]
- [wir ziehen gerade um|ich arbeite im Schichtdienst|ich bin viel unterwegs], [daher bin ich schlecht \
erreichbar|bitte per Mail antworten]
- [ein Foto|ein Screenshot|ein Bild] [ist angehängt|hänge ich an|liegt bei]
- ich [nutze|benutze] [mein|ein altes] {device} mit {browser}[, falls das wichtig ist|]
- [ich hing|hing] {10-50} Minuten in der Warteschleife[ und habe aufgelegt|, bis die Leitung weg war|]
- [das Konto läuft auf|registriert bin ich mit] {email}
- [es ist kein Drama|kein Weltuntergang], [aber ärgerlich|aber ich hätte es gern geklärt]
- [sonst|ansonsten] [bin ich sehr zufrieden|gefällt mir alles|mag ich Ihren Service]
- [angefangen hat es|aufgefallen ist es mir] [am {date}|am {day}|gegen {time}]
% urgency
- [es ist|die Sache ist] [sehr |wirklich |]dringend
- ich brauche [bis {day}|heute noch|schnellstmöglich] eine [Antwort|Lösung]
- [bitte|ich bitte] um [rasche|schnelle|zügige] [Antwort|Bearbeitung|Rückmeldung]
% ask
- [können|könnten] Sie [mir|da|] [bitte |][helfen|nachsehen|das prüfen|das klären]?
- was [soll|kann|muss] ich [jetzt|nun] [tun|machen]?
- [bitte|ich bitte] um [Hilfe|Rückmeldung|kurze Info|Klärung]
- [melden Sie sich|geben Sie Bescheid], wenn [Sie noch etwas brauchen|Angaben fehlen]
% thanks
- [vielen Dank|danke|besten Dank|herzlichen Dank][ im Voraus| für Ihre Hilfe| für die Mühe|]
% closing
- [Mit freundlichen Grüßen|Viele Grüße|Beste Grüße|Liebe Grüße|MfG|Schöne Grüße|LG]
% signature
- {me}
- {name}
- {name}
- {name}\\n{phone}
- {name}\\n{street}, {city}
% device
- Von meinem [iPhone|iPad|Samsung|Handy] gesendet
- Diese Nachricht ist vertraulich und nur für den Empfänger bestimmt.
% quote_head
- Am {date_long} um {clock} schrieb {company} Support <{support}>:
- -----Ursprüngliche Nachricht-----\\nVon: {company}\\nGesendet: {date_long} {clock}
% quote
- Hallo {me},
- vielen Dank für Ihre Nachricht an {company}.
- Wir melden uns innerhalb von {12-48} Stunden.
- Ihre Vorgangsnummer lautet {ddddddd}.
- Bitte senden Sie uns [noch|] [Ihre Kundennummer|einen Screenshot|weitere Angaben].
- Mit freundlichen Grüßen, {agent}
% also
- [außerdem|und noch etwas|übrigens|noch eine Sache]: {other}
- [vor einem Monat|im Frühjahr|neulich] [hatte ich schon ein anderes Thema|habe ich geschrieben]: {other}, [das ist \
erledigt|das war etwas anderes]
- [vielleicht hängt es zusammen|keine Ahnung, ob das dazugehört], aber {other}
% vague
- [ich habe|es gibt] [ein Problem|Ärger|Schwierigkeiten] mit [meinem Konto|der letzten Bestellung|dem Ganzen]
- [das|es] [geht nicht|funktioniert nicht|stimmt so nicht] [schon wieder|mehr|]
- [bitte melden Sie sich|bitte um Kontakt] [wegen {order}|zu meiner Anfrage|deswegen]
- [siehe|bitte sehen Sie] [Anhang|unten|meine letzte Mail]
- [ich warte noch|immer noch keine Antwort] [auf|zu] [meine letzte Nachricht|{order}]
% subject
- [Hilfe|Frage|Problem|Anfrage|Bitte um Hilfe|Kundenanfrage]
- [meine Bestellung|mein Konto|{order}|Ihre Mail vom {date}]
% subject_prefix
- [AW: |Re: |DRINGEND: |WG: ]
"""

COMMON = """
@ login | Konto | Anmeldung klappt nicht | two_factor
= Bitte nutzen Sie "Passwort vergessen" auf der Anmeldeseite; der Link gilt eine Stunde.
= Kommt keine Mail, sehen Sie bitte im Spam-Ordner nach.
! [Anmeldung|Login] [geht nicht|nicht möglich]
! Passwort [vergessen|falsch|zurücksetzen]
- ich [kann mich nicht|komme nicht mehr] [anmelden|einloggen|in mein Konto]
- mein Passwort [wird nicht akzeptiert|ist angeblich falsch|geht nicht mehr]
- die Mail zum Zurücksetzen [kommt nicht an|führt zu einem Fehler|ist abgelaufen]
- mein Konto ist [gesperrt|nach {3-5} Versuchen zu|seit {day} blockiert]
+ [ich habe es|hab es] [schon|] {2-6} mal versucht
+ auch im Spam ist nichts
? [können|könnten] Sie [mein Konto entsperren|das Passwort zurücksetzen]?
@ two_factor | Konto | Code kommt nicht an | login
= Der Code kommt meist binnen einer Minute. Bitte prüfen Sie die Telefonnummer in Ihrem Profil.
= Bei einem neuen Handy setzen wir den zweiten Schritt für Sie zurück.
! [Bestätigungscode|SMS-Code|Sicherheitscode] [fehlt|kommt nicht]
- ich [bekomme|erhalte] [keinen|nie einen] [SMS-Code|Bestätigungscode|Code] [mehr|beim Anmelden|aufs Handy|]
- [ich habe|habe] ein neues Handy und die [Codes|App für die zwei Faktoren] [gehen nicht mehr|ist weg]
- der [Code|Sicherheitscode] ist [immer|angeblich] [ungültig|abgelaufen]
- [ich hänge|hänge] bei der [Zwei-Faktor-Abfrage|Code-Eingabe] fest
+ meine neue Nummer ist {phone}
? [können|könnten] Sie [die zweite Stufe abschalten|den Code per Mail schicken]?
@ change_contact | Konto | Adresse, Name oder E-Mail ändern
= Ihre Daten ändern Sie unter Einstellungen, Profil. Zur Sicherheit schreiben wir an die alte und die neue Adresse.
! [neue E-Mail|Adressänderung|Namensänderung|neue Telefonnummer]
- ich [möchte|will] meine [E-Mail-Adresse|Telefonnummer|Kontaktdaten] ändern
- ich habe geheiratet und heiße [jetzt|nun] {last}
- [im Profil|im Konto] ist ein Tippfehler [im Namen|in der E-Mail]
- Sie schreiben [immer noch|weiter] an meine alte [Adresse|Mail]
+ neu ist {email}
? wo [kann ich das ändern|stellt man das ein]?
@ delete_account | Datenschutz | Konto und Daten löschen | unsubscribe
= Wir löschen Konto und Daten innerhalb von 30 Tagen. Rechnungen müssen wir aufbewahren.
! [Konto|Daten] löschen
! [DSGVO|Auskunft] [Anfrage|nach Artikel 15]
- bitte löschen Sie [mein Konto|alle meine Daten|mein Profil][ vollständig| nach DSGVO|]
- [wie|wo] kann ich mein Konto [löschen|schließen]
- [gemäß|nach] [DSGVO|Artikel 17] [verlange|beantrage] ich die Löschung [meiner Daten|]
- welche Daten haben Sie [über mich|von mir] gespeichert
+ ich nutze [Sie|den Dienst] nicht mehr
? [bestätigen Sie|bitte bestätigen Sie] die Löschung [schriftlich|]?
@ unsubscribe | Datenschutz | Newsletter abbestellen | delete_account
= Wir haben Sie aus dem Verteiler genommen; es kann zwei Tage dauern, bis nichts mehr kommt.
! [Newsletter|Werbung] [abbestellen|stoppen]
- [bitte|ich möchte] [keine Werbung mehr|keinen Newsletter mehr|aus dem Verteiler]
- ich [bekomme|kriege] [täglich|ständig] [Werbemails|Newsletter]
- der Abmeldelink [funktioniert nicht|ist kaputt]
- ich habe mich [{2-4} mal|längst] [abgemeldet|ausgetragen] und es [kommen weiter Mails|hört nicht auf]
+ ich habe [nie zugestimmt|das nie bestellt]
? [nehmen Sie|bitte nehmen Sie] mich [endlich|] raus?
@ invoice | Rechnung | Rechnungskopie
= Alle Rechnungen liegen als PDF unter Konto, Dokumente. Die gewünschte hängt an.
! Rechnung [fehlt|anfordern|Kopie|falsch]
- ich [brauche|benötige|finde keine] [Rechnung|Quittung] [für|zu] [{order}|die Zahlung über {amount}]
- bitte [schicken|senden] Sie mir die Rechnung [noch einmal|als PDF]
- auf der Rechnung [steht die falsche Firma|fehlt die USt-Nummer|ist die alte Anschrift]
- [unser Steuerberater|die Buchhaltung] [verlangt|braucht] [einen Beleg|die Rechnungen]
+ Firma ist [die|] {last} GmbH
? [können|könnten] Sie [sie mir mailen|das korrigieren]?
@ charged_twice | Rechnung | Doppelt abgebucht | payment_failed
= Oft ist eine der Buchungen nur vorgemerkt und verschwindet nach fünf Tagen.
= Bleibt sie, erstatten wir sie sofort.
! [doppelt abgebucht|doppelte Zahlung|falscher Betrag]
- Sie haben [zweimal|doppelt] {amount} abgebucht
- auf [dem Konto|der Kreditkarte] [stehen zwei Buchungen|ist die Zahlung doppelt]
- der abgebuchte Betrag ist [zu hoch|höher als bestellt], {amount} [zu viel|mehr]
- {order} wurde [zweimal|doppelt] [berechnet|bezahlt]
+ meine Bank [sagt, beide sind gebucht|kann nichts tun]
? [erstatten Sie|wann erstatten Sie] [den Betrag|{amount}]?
@ payment_failed | Rechnung | Zahlung abgelehnt | charged_twice
= Die Bank hat die Zahlung abgelehnt, abgebucht wurde nichts. Prüfen Sie bitte Limit und Ablaufdatum.
! Zahlung [abgelehnt|fehlgeschlagen|nicht möglich]
- meine [Zahlung|Karte|Kreditkarte] wird [immer|] [abgelehnt|nicht angenommen]
- ich kann nicht [bezahlen|mit PayPal zahlen|mit Karte zahlen]
- beim [Bezahlen|letzten Schritt] kommt [Fehler {ddd}|eine Fehlermeldung]
- die Lastschrift [wird nicht angeboten|ist geplatzt|geht nicht]
+ [woanders|in anderen Läden] geht die Karte
? gibt es [eine andere Zahlungsart|einen anderen Weg]?
@ promo_code | Angebote | Gutschein geht nicht
= Bitte achten Sie auf Ablaufdatum und Mindestwert. Als Geste liegt ein neuer Code in Ihrem Konto.
! [Gutschein|Rabattcode] [ungültig|geht nicht]
- der [Gutschein|Rabattcode|Code] {LL}{LL}{10-30} [wird nicht angenommen|ist ungültig|geht nicht]
- der Rabatt von {10-30} Prozent [wurde nicht abgezogen|fehlt]
- ich habe vergessen, [den Gutschein|meinen Code] einzugeben
- mein [Geburtstagsgutschein|Geschenkgutschein] ist [abgelaufen|leer]
+ er gilt [laut Mail|] bis {future}
? [können|könnten] Sie [den Rabatt abziehen|einen neuen schicken]?
@ complaint | Feedback | Beschwerde | callback
= Das tut uns leid. Ich habe Ihren Fall an die Leitung gegeben; Sie hören binnen zwei Tagen von uns.
! [Beschwerde|sehr enttäuscht|schlechter Service]
- ich möchte mich [beschweren|über {agent} beschweren|offiziell beschweren]
- Ihr [Kundendienst|Service|Support] ist [eine Katastrophe|unmöglich|sehr unfreundlich]
- [niemand fühlt sich zuständig|man wird nur weiterverbunden|keiner antwortet]
- ich bin [sehr|maßlos] [enttäuscht|verärgert] [über die Behandlung|]
+ ich werde [schlecht bewerten|kündigen|zum Anwalt gehen]
? ich [erwarte|verlange] [eine Entschuldigung|einen Vorgesetzten]
@ callback | Feedback | Rückruf | complaint
= Gern rufen wir Sie an. Bitte nennen Sie uns zwei Zeiten und eine Nummer.
! [Rückruf|bitte anrufen|Telefonnummer]
- bitte rufen Sie mich [an|zurück] [unter {phone}|am {day}|nach {time}]
- ich möchte mit einem [Menschen|Mitarbeiter] sprechen
- [haben Sie|gibt es] eine [Hotline|Telefonnummer]
- ich habe Ihren Anruf [verpasst|am {day} verpasst]
+ erreichbar bin ich [ab {time}|am {day}]
? wann rufen Sie an?
@ praise | Feedback | Lob
= Vielen Dank für die netten Worte, ich habe sie dem Team gezeigt!
! [Lob|Danke|toller Service]
- ich wollte [nur|einfach] [danke|ein Lob] sagen[ an {agent}|]
- {agent} war [sehr|unglaublich] [freundlich|hilfsbereit|geduldig]
- [alles hat|es hat alles] [super|bestens] geklappt
- [toller|großartiger|schneller] [Service|Kundendienst]
+ ich empfehle Sie weiter
? [weiter so|keine Antwort nötig]
"""

ECOMMERCE = """
$ product: Wanderschuhe; Regenjacke; Schreibtischlampe; Kaffeemühle; Wolldecke; Rucksack; Heißluftfritteuse; \
Kopfhörer; \
Bücherregal; Kinderfahrrad; Gesichtscreme; Gartenstühle; Messerset; Bettwäsche; Kapuzenpulli; Zelt; Yogamatte
$ order: Bestellung {order_no}; {order_no}; Bestellnummer {order_no}; Auftrag {order_no}
$ carrier: DHL; Hermes; DPD; GLS; der Bote; die Post
$ colour: Schwarz; Grün; Grau; Rot; Beige; Weiß
$ size: S; M; L; XL; {36-46}
@ late_parcel | Versand | Wo ist mein Paket | not_received
= Pakete brauchen drei bis fünf Werktage, die Verfolgung steht manchmal einen Tag still.
= Kommt nichts, starten wir eine Suche.
! [wo ist mein Paket|Lieferung verspätet|Paket nicht da]
- wo [ist|bleibt] [mein Paket|meine Bestellung|{order}]?
- [mein Paket|meine Lieferung|die Bestellung vom {date}] ist [immer noch|noch] nicht [da|angekommen]
- die Sendungsverfolgung [steht seit {days}|zeigt nichts|bewegt sich nicht]
- ich warte seit {days} auf [mein Paket|{order}|die Lieferung ({product})]
- die Lieferung war für {day} [versprochen|angekündigt]
+ {carrier} [sagt|meldet] "[in Zustellung|im Zentrum {city}|angekündigt]"
? wann [kommt es|wird geliefert]?
? [können|könnten] Sie nachforschen?
@ not_received | Versand | Zugestellt, aber nicht da | late_parcel
= Bitte fragen Sie die Nachbarn. Taucht es bis morgen nicht auf, schicken wir Ersatz.
! [zugestellt|geliefert], aber nicht [da|erhalten]
! Paket [verschwunden|gestohlen|verloren]
- [laut|nach] {carrier} [zugestellt|abgegeben], aber [hier ist nichts|ich habe nichts bekommen]
- mein Paket ist [verschwunden|verloren|gestohlen worden]
- ich habe [{order}|mein Paket] nie [bekommen|erhalten]
- die Unterschrift [ist nicht von mir|kenne ich nicht]
+ die Nachbarn [haben nichts|wissen nichts]
? [schicken Sie|können Sie] [Ersatz|es noch einmal senden]?
@ return_item | Retoure | Artikel zurückschicken | exchange_size
= Sie können 30 Tage lang zurückgeben. Das Etikett drucken Sie unter "Meine Bestellungen".
! [Retoure|Rücksendung|Widerruf] [|von {order}]
- ich möchte [{order}|etwas|die Ware] ({product}) zurück[schicken|geben|senden]
- [wie|wo] [bekomme|finde] ich [das Rücksendeetikett|den Retourenschein]
- im Paket war kein [Rücksendeschein|Etikett]
- [hiermit widerrufe ich|ich widerrufe] den Kauf [von {order}|]
+ [unbenutzt|ungetragen|noch verpackt]
? muss ich die Rücksendung [bezahlen|selbst zahlen]?
@ exchange_size | Retoure | Umtausch in andere Größe | return_item
= Wählen Sie "Umtausch" in der Bestellung; die neue Größe wird zehn Tage zurückgelegt.
! [Umtausch|falsche Größe|andere Größe]
- {product}: [zu klein|zu groß|zu eng], ich [brauche|hätte gern] Größe {size}
- kann ich [in Größe {size}|gegen {colour}|die Größe] [umtauschen|tauschen]
- ich habe Größe {size} bestellt, brauche aber {size}
- die Größentabelle [stimmt nicht|ist falsch]
+ [nur anprobiert|mit Etikett]
? [haben Sie|gibt es] {size} noch?
@ refund_status | Retoure | Wo ist meine Erstattung | return_item
= Ihre Retoure ist da; die Erstattung dauert fünf Werktage.
! [Erstattung|Rückzahlung|Geld] [fehlt|wann]
- ich habe [am {date}|vor {days}] zurückgeschickt und [kein Geld bekommen|nichts gehört]
- wo bleibt [meine Erstattung|mein Geld|die Rückzahlung]
- Sie haben nur {amount} erstattet [statt {amount}|]
- die Retoure ist [laut {carrier}|seit {days}] bei Ihnen, aber das Geld fehlt
+ den Beleg [habe ich noch|hänge ich an]
? wann [wird erstattet|kommt das Geld]?
@ damaged | Qualität | Beschädigt angekommen | faulty
= Bitte schicken Sie ein Foto. Sie haben die Wahl zwischen Ersatz und Erstattung.
! [beschädigt|kaputt] [angekommen|geliefert]
- {product} [kam|wurde] [kaputt an|beschädigt geliefert|mit Kratzern an]
- der Karton war [zerdrückt|nass|aufgerissen]
- beim Auspacken [war etwas zerbrochen|sah ich einen Riss]
- {carrier} hat das Paket [fallen lassen|in den Regen gestellt]
+ [kaum|schlecht] [gepolstert|verpackt]
? [bekomme ich|schicken Sie] [Ersatz|einen Nachlass]?
@ faulty | Qualität | Defekt, Garantie | damaged
= Es gilt die Gewährleistung von zwei Jahren. Bitte beschreiben Sie den Fehler kurz.
! [Garantie|Reklamation|Gewährleistung]
- {product} [geht nach {2-11} Monaten nicht mehr|ist defekt|fällt auseinander]
- ich möchte [die Garantie nutzen|reklamieren]: {product}
- [Reißverschluss|Motor|Naht|Schalter] ist [kaputt|gerissen|hin]
- es [schaltet sich ab|macht Geräusche|lädt nicht mehr]
+ gekauft [am {date}|vor {2-20} Monaten]
? [wird das repariert|reparieren Sie das]?
@ wrong_item | Qualität | Falscher Artikel | missing_item
= Entschuldigung, da ist etwas vertauscht worden. Der richtige Artikel geht heute raus.
! [falscher Artikel|falsche Ware|Falschlieferung]
- ich habe [den falschen Artikel|etwas ganz anderes|die falsche Farbe] bekommen
- bestellt war {product}, geliefert wurde {product2}
- [im Paket|im Karton] ist [die Bestellung von jemand anderem|das falsche Modell]
- statt {colour} kam {colour}
+ auf dem Lieferschein steht es richtig
? was mache ich mit dem falschen [Teil|Artikel]?
@ missing_item | Qualität | Artikel fehlt | wrong_item
= Größere Bestellungen kommen in mehreren Paketen. Sonst schicken wir das fehlende Teil heute nach.
! [unvollständig|Teil fehlt|Artikel fehlt]
- [im Paket|in {order}] fehlt [ein Artikel|ein Teil|{product}]
- [es kamen nur|ich habe nur] {1-2} von {3-6} [Artikeln|Teilen]
- die [Schrauben|Anleitung|Kabel] [fehlen|waren nicht dabei]
- die Lieferung ist [unvollständig|nicht komplett]
+ der Karton war [zu|unversehrt]
? kommt [der Rest|das] noch?
@ cancel_order | Bestellung | Bestellung stornieren | change_order
= Wir konnten die Bestellung noch anhalten; der Betrag wird freigegeben.
! [Storno|stornieren|Stornierung]
- bitte stornieren Sie [{order}|meine Bestellung|den Auftrag]
- ich habe [aus Versehen|doppelt|das Falsche] bestellt
- kann ich [{order}|die Bestellung] noch [stornieren|abbrechen]
- [bitte nicht|nicht] [verschicken|versenden], ich will [{product}|das] nicht mehr
+ noch [nicht versendet|in Bearbeitung]
? bitte [bestätigen|um Bestätigung] der Stornierung?
@ change_order | Bestellung | Adresse oder Artikel ändern | cancel_order
= Wir haben die Bestellung geändert, eine neue Bestätigung ist unterwegs.
! [falsche Adresse|Lieferadresse ändern|Bestellung ändern]
- ich habe [die falsche Adresse|die falsche Hausnummer|eine alte Anschrift] angegeben
- bitte liefern Sie an {street}
- [kann ich|ich möchte] [{product}|einen Artikel] [hinzufügen|ändern]
- wir sind umgezogen, [{order}|das Paket] muss nach {city}
+ [eben erst|vor {10-50} Minuten] bestellt
? geht das noch?
@ stock | Produkte | Wann wieder lieferbar
= Die Ware ist unterwegs ins Lager. Mit "Benachrichtigen" erfahren Sie es zuerst.
! [wieder lieferbar|ausverkauft|Verfügbarkeit]
- wann ist [{product}|der Artikel] wieder [da|lieferbar|verfügbar]
- {product} ist [ausverkauft|nicht lieferbar]
- kommt [{product}|das] in [{colour}|Größe {size}] noch einmal
+ ich suche [schon lange|seit {days}] danach
? können Sie eins zurücklegen?
@ product_info | Produkte | Frage zum Produkt
= Maße, Material und Pflege stehen unter "Details" auf der Produktseite.
! [Frage zu|Produktfrage] {product}
- {product}: [welches Material|wie groß|wie schwer|welche Maße]
- ist [{product}|das] [wasserdicht|vegan|waschbar|für Kinder geeignet]
- passt [{product}|das] zu meinem {device}
- was ist der Unterschied [zwischen den Modellen|zu {product}]
+ auf der Seite steht [nichts dazu|zweierlei]
? was würden Sie empfehlen?
@ shipping_cost | Versand | Versandkosten und Länder
= Der Standardversand kostet 4,90 Euro und ist ab 50 Euro frei.
! [Versandkosten|Lieferung nach Österreich|Lieferung in die Schweiz]
- liefern Sie [auch|] [nach Österreich|in die Schweiz|an eine Packstation]
- was kostet [der Versand|die Lieferung|Express] [nach {city}|]
- ab [welchem Wert|wie viel] ist [der Versand|die Lieferung] frei
- warum [zahle ich|kostet der Versand] {amount}
? muss ich Zoll zahlen?
"""
