"""What of a message its writer did not write this time: answers quoted below, forwarded headers, signatures, footers.

By line, in the languages of the common mail programs. Libraries were tried first: mail-parser-reply (13 languages) took
7 ms for a short ticket and more than a minute for 64 KiB of `On `; quotequail (10 languages, none of East Asia) 0.4 s for
`On Mon wrote` lines; talon has had no release since 2017 and needs lxml and scikit-learn. Here every line is looked at a
bounded number of times by expressions that cannot backtrack far, and only so many lines are read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from registry.text.steps import Steps, finished

# More than any message needs that a program reads a few thousand code points of.
_MOST_LINES = 500
_LINES_A_STEP = 50
_LONGEST_HEADER = 300
_LONGEST_FOOTER = 120
_COLONS = (":", "\uff1a")

# "On Mon, 3 Nov 2026 at 9:12, Jane Doe <jane@example.com> wrote:" and what other languages' programs write instead.
_WROTE = re.compile(
    r"\bwrote|\bschrieb|\bescribi[oó]|\ba écrit|\bha scritto|\bescreveu|\bschreef|\bgeschreven|\bskrev|\bkirjoitti"
    r"|\bnapisa[łl]|\bpisze|\bnapsal|\bnapísal|\bírta|\ba scris|\byazdı|написа|пишет|пише|έγραψε|\bđã viết|\bmenulis"
    r"|のメール|書きました|写道|寫道|님이 작성|작성:|작성했|เขียนว่า|كتب|نوشت|כתב|מאת"
)
# What such a line starts with when it goes on in the next one.
_WROTE_STARTS = (
    "on ", "am ", "le ", "el ", "il ", "em ", "op ", "den ", "w dniu ", "dne ", "pada ", "vào ", "în ", "στις ", "a ",
    "fre", "man", "tir", "ons", "tor", "lør", "søn", "ma ", "ti ", "ke ", "to ", "pe ", "la ", "su ", "в ", "у ",
    "في ", "در ", "בתאריך", "ב-", "เมื่อ", "วัน", "於 ", "在 ", "20",
)  # fmt: skip
_TIME = re.compile(r"\d[:.h]\d\d|\d{4}")

# -----Original Message----- and the like.
_SEPARATOR = re.compile(
    r"[-_=*#+]{2,}+\s*(?:begin )?(?:original message|forwarded message|ursprüngliche nachricht|weitergeleitete nachricht|"
    r"originalnachricht|mensaje original|mensaje reenviado|message d'origine|message original|message transféré|"
    r"messaggio originale|messaggio inoltrato|oorspronkelijk bericht|doorgestuurd bericht|mensagem original|"
    r"mensagem encaminhada|ursprungligt meddelande|vidarebefordrat meddelande|oprindelig meddelelse|"
    r"opprinnelig melding|alkuperäinen viesti|wiadomość oryginalna|původní zpráva|исходное сообщение|"
    r"пересылаемое сообщение|пересланное сообщение|orijinal mesaj|iletilen mesaj|元のメッセージ|転送メッセージ|"
    r"original message|原始邮件|转发邮件|原始郵件|轉寄郵件|원본 메[시세]지|전달된 메[시세]지|ข้อความต้นฉบับ|ข้อความที่ส่งต่อ|"
    r"الرسالة الأصلية|رسالة معاد توجيهها|הודעה מקורית|הודעה שהועברה)[^\w]{0,40}$"
    r"|(?:begin forwarded message|anfang der weitergeleiteten (?:nachricht|e-mail)|inicio del mensaje reenviado|"
    r"début du message réexpédié|inizio messaggio inoltrato|転送されたメッセージ)\s*[:：]$"
    # A help desk's own notification, answered.
    r"|[#=*-]{2,}+.{0,40}(?:above this line|über dieser zeile|encima de esta línea|au-dessus de cette ligne|"
    r"この行より上|以上の行).{0,40}$"
)
_RULE = re.compile(r"[-_=*~#.\u2010-\u2015\u2500-\u2501\u30fc\u2026+]{3,}$")

# The headers that Outlook puts over a copy, by what stands before the colon.
_FIELDS = {
    name.casefold(): field
    for field, names in {
        "from": "from von de da van från fra lähettäjä od от від kimden 差出人 送信者 发件人 寄件者 보낸사람 จาก من מאת",
        "sent": "sent date gesendet datum enviado fecha envoyé date inviato data verzonden skickat sendt lähetetty "
        "wysłano odesláno отправлено дата gönderildi tarih 送信日時 日時 发送时间 日期 寄件日期 보낸날짜 날짜 ส่ง วันที่ تاريخ נשלח",
        "to": "to an para à a aan till til vastaanottaja do komu кому kime 宛先 收件人 收件者 받는사람 ถึง إلى אל",
        "subject": "subject betreff asunto objet oggetto onderwerp assunto ämne emne aihe temat předmět тема konu 件名 "
        "主题 主旨 제목 เรื่อง الموضوع נושא",
    }.items()
    for name in names.split()
}
_LONGEST_FIELD = 16

# Lines that a program adds below what was written.
_FOOTER = re.compile(
    r"(?:sent|gesendet|enviado|envoyé|inviato|verzonden|skickat|sendt|lähetetty|wysłan[eo]|odesláno|отправлено|надіслано|"
    r"von meinem|von meiner|desde mi|de mon|dal mio|inviata|gesendete|verstuurd)\b.{0,24}"
    r"(?:iphone|ipad|android|samsung|galaxy|huawei|xiaomi|pixel|outlook|yahoo|gmx|web\.de|proton|mail|mobile|smartphone|"
    r"handy|tablet|telefon|teléfono|móvil|celular|portable|blackberry|windows)(?:\W+\w+){0,3}\W{0,3}$"
    r"|(?:get|hol|obtener|obtenez|télécharger|scarica|download) outlook (?:for|für|para|pour|per|voor) (?:ios|android)$"
    r"|outlook (?:für|for|pour|para) (?:ios|android)\b.{0,20}$"
    r"|.{0,24}(?:iphone|ipad|android|スマホ|スマートフォン)\s?から送信.{0,10}$|发自我的.{1,30}$|從我的.{1,30}傳送$"
    r"|나의 .{1,30}에서 보냄$|ส่งจาก.{0,3}(?:iphone|ipad|android|outlook).{0,20}$"
    r"|.{0,4}رسلت من.{1,40}$|נשלח מה.{1,40}$"
    r"|\[(?:image|cid|bild|imagen|inline image|logo)\b[^\]]{0,100}\]$"
)
_DISCLAIMER = re.compile(
    r"(?:this|the information in this|the contents of this) (?:e-?mail|message|communication)\b.{0,80}"
    r"\b(?:confidential|intended|privileged)"
    r"|(?:confidentiality|privacy) notice|disclaimer\s*[:：]|please consider the environment"
    r"|diese (?:e-?mail|nachricht)\b.{0,60}\bvertraulich|este (?:correo|mensaje)\b.{0,80}\bconfidencial"
    r"|ce (?:message|courriel|mail)\b.{0,80}\bconfidentiel|questo messaggio\b.{0,80}\b(?:riservat|confidenzial)"
)
_SIGNATURE_MARKS = frozenset(("--", "-- ", "\u2014", "__", "\u2014\u2014"))
_CLOSINGS = frozenset(
    line.strip().casefold()
    for line in """
    best; all the best; best regards; kind regards; warm regards; regards; best wishes; warm wishes; cheers; sincerely;
    yours sincerely; yours faithfully; yours truly; yours; respectfully; cordially; with kind regards; many thanks;
    thanks; thank you; thanks in advance; thank you in advance; thanks and regards; thx; br; kr
    mit freundlichen grüßen; mit freundlichen gruessen; mit freundlichem gruß; freundliche grüße; viele grüße; vg; lg;
    mfg; liebe grüße; beste grüße; schöne grüße; herzliche grüße; viele gruesse; gruß; grüße; danke; vielen dank;
    vielen dank im voraus; danke im voraus; hochachtungsvoll
    saludos; un saludo; saludos cordiales; cordiales saludos; atentamente; atte; un cordial saludo; gracias;
    muchas gracias; gracias de antemano; cordialmente
    cordialement; bien cordialement; bien à vous; salutations; sincères salutations; merci; merci d'avance;
    merci beaucoup; cdt; cdlt
    cordiali saluti; distinti saluti; saluti; grazie; grazie mille; atenciosamente; cumprimentos; obrigado; obrigada; att
    met vriendelijke groet; met vriendelijke groeten; groeten; groetjes; mvg; bedankt; alvast bedankt
    med vänlig hälsning; med vänliga hälsningar; vänliga hälsningar; mvh; hälsningar; tack; med venlig hilsen;
    venlig hilsen; med vennlig hilsen; vennlig hilsen; hilsen; tak; takk; ystävällisin terveisin; terveisin; kiitos
    pozdrawiam; z poważaniem; dziękuję; s pozdravem; děkuji; с уважением; спасибо; з повагою; дякую; saygılarımla;
    teşekkürler; iyi çalışmalar
    以上; 失礼いたします; 敬具; よろしくお願いします; よろしくお願いいたします; 宜しくお願い致します; よろしくお願い致します;
    宜しくお願いいたします; 谢谢; 謝謝; 此致; 祝好; 감사합니다; 고맙습니다; ขอบคุณ; ขอบคุณครับ; ขอบคุณค่ะ; ด้วยความเคารพ
    مع التحية; تحياتي; شكرا; شكراً; مع أطيب التحيات; בברכה; תודה; תודה רבה
    """.replace("\n", ";").split(";")
    if line.strip()
)
_SIGNATURE_LINES, _SIGNATURE_WIDTH, _SIGNATURE_WORDS = 6, 60, 6
_ENDS = " ,.!;:、。，！-\u2013\u2014"


def own_words(text: str) -> str:
    """The lines that the writer of a message wrote this time, each with single spaces, without empty ones.

    Args:
        text: plain, with `\\n` between lines.

    Returns:
        What is left without quoted lines, quoted messages, their headers, signatures and footers; empty where that is
        nothing.
    """
    return finished(own_words_in_steps(text))


def own_words_in_steps(text: str) -> Steps[str]:
    """What `own_words` returns; a step is so many lines."""
    lines = _lines(text)
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not at % _LINES_A_STEP:
            yield
        if line[0] == ">":
            continue
        folded = line.casefold() if len(line) <= _LONGEST_HEADER else ""
        if (headed := _reply_header(lines, at - 1, folded)) or _starts_copy(lines, at - 1, folded):
            at += max(headed - 1, 0)
            if headed and at < len(lines) and lines[at][0] == ">":
                continue  # the quoted lines are marked: the writer may go on below, or between them
            break
        if line in _SIGNATURE_MARKS and kept:
            break
        if not _is_footer(line, folded):
            kept.append(line)
    return "\n".join(_without_signature(kept))


def all_words(text: str) -> str:
    """The same lines with those that were quoted, and without what is nobody's words: for who quoted and wrote nothing."""
    bare = (line.lstrip("> ") for line in _lines(text))
    return "\n".join(line for line in bare if line and not _RULE.match(line))


def _lines(text: str) -> list[str]:
    """The first lines that are not empty."""
    split = map(_single_spaced, text.split("\n"))
    return list(islice(filter(None, split), _MOST_LINES))


def _single_spaced(line: str) -> str:
    # The only space that counts as printable is the common one.
    if line.isprintable() and "  " not in line:
        return line.strip()
    return " ".join(line.split())


def _reply_header(lines: Sequence[str], at: int, folded: str) -> int:
    """How many lines the header of a quoted message takes here, from 0 to 3."""
    if not folded:
        return 0
    if folded.endswith(_COLONS):
        return int(_says_wrote(folded))
    if folded.startswith(_WROTE_STARTS) and _TIME.search(folded):
        # Mail programs wrap such a line wherever it gets long.
        for count in (2, 3):
            folded = " ".join((folded, *(line.casefold() for line in lines[at + count - 1 : at + count])))
            if len(folded) > _LONGEST_HEADER:
                break
            if folded.endswith(_COLONS):
                return count if _says_wrote(folded) else 0
    return 0


def _says_wrote(folded: str) -> bool:
    if not _TIME.search(folded):
        return False
    return ("@" in folded and "<" in folded) or bool(_WROTE.search(folded))


def _starts_copy(lines: Sequence[str], at: int, folded: str) -> bool:
    """Whether a copy of another message starts here, with a line that says so or with its headers."""
    if not folded:
        return False
    if _SEPARATOR.match(folded):
        return True
    if _field(folded) != "from":
        return False
    # Below each other: From, Sent, To, Subject in some order; addresses may take more lines.
    # A subject or an address must be among them: a journey has a from, a to and a date as well.
    below = [line[:_LONGEST_HEADER].casefold() for line in lines[at + 1 : at + 6]]
    found = {_field(line) for line in below} & {"sent", "to", "subject"}
    return len(found) >= 2 and ("subject" in found or "@" in folded)


def _field(folded: str) -> str | None:
    head = folded[:_LONGEST_FIELD].replace("\uff1a", ":")
    name, colon, _ = head.partition(":")
    return _FIELDS.get(name.strip(" *").replace(" ", "")) if colon else None


def _is_footer(line: str, folded: str) -> bool:
    if _RULE.match(line):
        return True
    if len(line) <= _LONGEST_FOOTER and _FOOTER.match(folded):
        return True
    return bool(_DISCLAIMER.match(folded or line[:_LONGEST_HEADER].casefold()))


def _without_signature(lines: list[str]) -> list[str]:
    """Cut at the last closing ("Kind regards,") that nothing but a name and an address follow."""
    for back in range(1, min(len(lines) - 1, _SIGNATURE_LINES + 1) + 1):
        line = lines[-back]
        if line.strip(_ENDS).casefold() in _CLOSINGS:
            return lines[:-back]
        if not _may_sign(line):
            break
    return lines


def _may_sign(line: str) -> bool:
    """Whether a line below a closing may be a name, a post, an address or a telephone, and no afterthought."""
    words = line.count(" ") + 1
    if len(line) > (_SIGNATURE_WIDTH if words > 1 else _SIGNATURE_WIDTH // 3) or words > _SIGNATURE_WORDS:
        return False
    return line[-1] not in "?!。\uff1f\uff01" and (line[-1] != "." or words <= 3)
