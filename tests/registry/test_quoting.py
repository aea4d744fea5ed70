import pytest

from registry.text.quoting import all_words, own_words

QUOTED = "> Hello Jane,\n> thank you for contacting us."
REPLY_HEADERS = [
    "On Mon, Nov 3, 2026 at 9:12 AM Shop Support <support@shop.example> wrote:",
    "On 3 Nov 2026, at 09:12, Kim from Shop wrote:",
    "On Mon, Nov 3, 2026 at 9:12 AM Shop Support with a rather long name\n<support@shop.example> wrote:",
    "On Mon, Nov 3, 2026 at 9:12 AM Shop Support with a rather long name <\nsupport@shop.example>\nwrote:",
    "Am Mo., 3. Nov. 2026 um 09:12 Uhr schrieb Shop <support@shop.example>:",
    "Am 03.11.2026 um 09:12 schrieb Kim Muster:",
    "Shop Support <support@shop.example> schrieb am Mo., 3. Nov. 2026, 09:12:",
    "El lun, 3 nov 2026 a las 9:12, Tienda (<soporte@shop.example>) escribió:",
    "Le lun. 3 nov. 2026 à 09:12, Boutique <support@shop.example> a écrit :",
    "Il giorno lun 3 nov 2026 alle ore 09:12 Negozio <support@shop.example> ha scritto:",
    "Em seg., 3 de nov. de 2026 às 09:12, Loja <support@shop.example> escreveu:",
    "Op ma 3 nov 2026 om 09:12 schreef Winkel <support@shop.example>:",
    "Den mån 3 nov. 2026 kl 09:12 skrev Butik <support@shop.example>:",
    "ma 3. marrask. 2026 klo 9.12 Kauppa (support@shop.example) kirjoitti:",
    "pon., 3 lis 2026 o 09:12 Sklep <support@shop.example> napisał(a):",
    "пн, 3 нояб. 2026 г. в 09:12, Магазин <support@shop.example>:",
    "3 Kas 2026 Pzt 09:12 tarihinde Mağaza <support@shop.example> şunu yazdı:",
    "2026年11月3日(火) 9:12 サポート <support@shop.example>:",
    "2026/11/03 9:12、サポート <support@shop.example>のメール:",
    "客服 <support@shop.example> 于2026年11月3日周二 09:12写道:",
    "客服 <support@shop.example> 於 2026年11月3日 週二 上午9:12寫道\uff1a",
    "2026년 11월 3일 (화) 오전 9:12, 고객센터 <support@shop.example>님이 작성:",
    "เมื่อ อ. 3 พ.ย. 2026 เวลา 09:12 ร้านค้า <support@shop.example> เขียนว่า:",
    "في الثلاثاء، 3 نوفمبر 2026 في 9:12 ص تمت كتابة ما يلي بواسطة متجر <support@shop.example>:",
    "בתאריך יום ג׳, 3 בנוב׳ 2026 ב-9:12 מאת חנות <support@shop.example>:",
]
COPIES = [
    "-----Original Message-----\nFrom: Shop\nSent: 3 Nov 2026 09:12",
    "-----Ursprüngliche Nachricht-----\nVon: Shop",
    "---------- Forwarded message ---------\nFrom: Shop <a@b.example>",
    "-----元のメッセージ-----\n差出人: ショップ",
    "________________________________\nFrom: Shop <a@b.example>\nSent: Monday, 3 November 2026\nTo: Jane\nSubject: Order",
    "Von: Shop <a@b.example>\nGesendet: Montag, 3. November 2026 09:12\nAn: Jane\nBetreff: Bestellung",
    "De : Boutique <a@b.example>\nEnvoyé : lundi 3 novembre 2026\nÀ : Jane\nObjet : Commande",
    "De: Tienda <a@b.example>\nEnviado: lunes, 3 de noviembre\nPara: Jane\nAsunto: Pedido",
    "*From:* Shop <a@b.example>\n*Date:* Monday\n*Subject:* Order",
    "差出人: ショップ <a@b.example>\n送信日時: 2026年11月3日\n宛先: 山田\n件名: 注文",
    "发件人\uff1a 客服 <a@b.example>\n发送时间\uff1a 2026年\n收件人\uff1a 王\n主题\uff1a 订单",
    "##- Please type your reply above this line -##",
]
FOOTERS = [
    *("Sent from my iPhone", "Sent from my Samsung Galaxy smartphone.", "Sent from my mobile, excuse typos"),
    *("Get Outlook for iOS", "Von meinem iPhone gesendet", "Gesendet mit der GMX Mail App", "Enviado desde mi iPhone"),
    *("Envoyé de mon iPhone", "Inviato da iPhone", "iPhoneから送信", "发自我的iPhone", "나의 iPhone에서 보냄"),
    *("ส่งจาก iPhone ของฉัน", "[cid:image001.png@01DA]", "=====", "Please consider the environment before printing."),
    "This e-mail and any attachment are confidential and meant for the addressee only.",
    "Diese Nachricht ist vertraulich und nur für den Empfänger bestimmt.",
]
MINE = "My parcel is late.\nWhere is it?"


@pytest.mark.parametrize("header", REPLY_HEADERS)
def test_the_message_that_is_answered_goes_with_its_header(header: str) -> None:
    assert own_words(f"{MINE}\n\n{header}\n{QUOTED}\n") == MINE
    assert own_words(f"{MINE}\n\n{header}\n\nHello Jane,\nthank you.\n") == MINE


@pytest.mark.parametrize("header", REPLY_HEADERS[:5])
def test_who_answers_below_or_between_is_read(header: str) -> None:
    assert own_words(f"{header}\n{QUOTED}\n\n{MINE}") == MINE
    assert own_words(f"{header}\n> one\nMy parcel is late.\n> two\nWhere is it?") == MINE


@pytest.mark.parametrize("head", COPIES)
def test_a_copy_of_another_message_goes(head: str) -> None:
    assert own_words(f"{MINE}\n\n{head}\nHello Jane,\nthank you for your order.") == MINE


@pytest.mark.parametrize("footer", FOOTERS)
def test_what_programs_add_goes(footer: str) -> None:
    assert own_words(f"{MINE}\n\n{footer}\n") == MINE


@pytest.mark.parametrize(
    "closing",
    ["Kind regards,\nJane Doe", "Mit freundlichen Grüßen\nJane", "Saludos,\nJane\n+34 600 000 000", "以上\n山田"],
)
def test_a_closing_and_the_name_below_it_go(closing: str) -> None:
    assert own_words(f"{MINE}\n\n{closing}") == MINE


def test_a_signature_goes() -> None:
    assert own_words(f"{MINE}\n-- \nJane Doe\nHead of Everything") == MINE


@pytest.mark.parametrize(
    "mine",
    [
        "From: Berlin\nTo: Munich\nDate: 3 November",
        "Order: 12\nSent: yes",
        "On Monday your agent wrote:\nyou will get it",
        "Sent from my account to yours, and nothing came for three weeks now",
        "It costs 3 -> 4",
        "thanks\nfor nothing: the parcel that I wrote to you about last week is still not here, what is going on?",
        "At 9:12 it stopped:",
        "Where is it?\nThanks\nAlso, can I change the address?",
        "Where is it?\nThanks,\nand please send the invoice to my office address",
        "届きません\nよろしくお願いします\n住所の変更もお願いしたいのですが、どうすればよいか教えてください",
        "- first\n- second",
    ],
)
def test_what_only_looks_like_it_stays(mine: str) -> None:
    assert own_words(mine) == mine


def test_nothing_of_ones_own_is_nothing() -> None:
    assert own_words(f"{REPLY_HEADERS[0]}\n{QUOTED}") == ""
    assert all_words(QUOTED) == "Hello Jane,\nthank you for contacting us."
