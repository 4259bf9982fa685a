# ruff: noqa: E501, RUF001 - a pattern is easier to compare with its neighbours in one line, in whatever script
"""What attacks have in common, as patterns; all are looked for in few passes, linear in the length of the text."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import re2


class Family(Enum):
    """What a pattern is a sign of. The model weighs them; none decides alone."""

    OVERRIDE = "override"
    OVERRIDE_AND_ORDER = "override, and what to do instead"
    OVERRIDE_ELSEWHERE = "override in other languages"
    SQUEEZED = "override without spaces"
    NEW_ORDERS = "new orders"
    EXTRACTION = "prompt extraction"
    EXTRACTION_ELSEWHERE = "prompt extraction in other languages"
    TAKEOVER = "role takeover"
    PERSONA = "known persona"
    UNRESTRICTED = "no restrictions"
    NO_REFUSAL = "no refusal"
    TWO_ANSWERS = "two answers"
    FIRST_WORDS = "first words of the answer"
    STAY = "stay in character"
    DELIMITERS = "forged delimiters"
    FAKE_SYSTEM = "fake system message"
    AUTHORITY = "claimed authority"
    TO_THE_MODEL = "addressed to the model"
    CONCEALMENT = "concealment"
    EXFILTRATION = "exfiltration"
    SECRETS = "asking for secrets"
    SECRETS_ELSEWHERE = "asking for secrets in other languages"
    CODED = "coded message"
    PUPPET = "put words in its mouth"
    ORDER_TO_READER = "order to whoever answers"
    FORM_OF_ANSWER = "order on the form of the answer"
    BESIDE_TABLE = "a line that does not belong to the table beside it"
    AFTER_SIGNATURE = "a request after the end of a mail"
    ORDER_IN_RESULT = "an order in what a tool returned"
    VARIABLES = "placeholders of a template"
    TALK_ABOUT = "talk about attacks"
    EVERYDAY_OBJECT = "something harmless is ignored"


_GAP = r"\W+(?:[\w'’]+\W+){0,%d}?"
_DROP = (
    r"(?:ignor(?:e|es|ing)|disregard(?:ing)?|forget(?:ting)?|overrid(?:e|ing)|bypass(?:ing)?|neglect|overlook|dismiss|"
    r"discard|abandon|set aside|put aside|throw (?:out|away)|erase|delete|wipe|clear|cancel|void|nullify|suspend|"
    r"(?:do not|don'?t|stop|no longer|never|not) (?:follow|obey|comply with|adhere to|listen to|pay attention to)(?:ing)?|"
    r"pay no (?:attention|heed) to)"
)
_EARLIER = (
    r"(?:previous(?:ly)?|prior|above|preceding|earlier|initial|original|existing|foregoing|former|past|first|old|"
    r"system|developer|openai'?s?|safety|content|hidden|your|everything|anything|before|current|default|programmed)"
)
_ORDERS = (
    r"(?:instructions?|instrctions?|instrucions?|prompts?|rules?|directions?|directives?|guidelines?|guidance|orders?|"
    r"commands?|constraints?|polic(?:y|ies)|programming|restrictions?|limitations?|safeguards?|filters?|training|"
    r"messages?|context|conversation|assignments?|tasks?|principles|protocols?|statements?|texts?|told|said)"
)
_MODEL = r"(?:chat ?gpt|gpt-?\d?|open ?ai|claude|gemini|llama|copilot|siri|ai|a\.i\.|llms?|language model|chat ?bot|assistant)"
_SHOW = (
    r"(?:reveal|show|print|repeat|output|display|tell|give|leak|dump|write|share|list|disclose|expose|return|provide|"
    r"recite|reproduce|translate|summari[sz]e|paraphrase|encode|copy|paste|type|spell|echo|state|describe|what(?:'s|s)?|"
    r"read|include|append|convert|decode|send|explain|reflect)"
)
_Patterns = Sequence[tuple[Family, str]]

_PLAINER: _Patterns = (
    (
        Family.OVERRIDE,
        r"\b(?:regardless of|instead of|contrary to|in spite of|despite)\W+(?:any |all |your |the )*(?:previous|prior|above|earlier|initial|original|your)\W+(?:\w+\W+)?(?:instructions?|prompts?|rules|tasks?|directives?|guidelines)\b",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:игнорируй|проигнорируй|забудь|не обращай внимания|отмени|нехтуй|ігноруй)(?:те)?\P{L}+(?:\p{L}+\P{L}+){0,5}(?:инструкц|правил|указани|предыдущ|команд|выше|все|всё|інструкц)",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:忽略|忽視|无视|無視|忘记|忘掉|忘記|不要理会|不用管|不理会|别管|忽视)[^。！？\n]{0,20}(?:指令|指示|规则|規則|提示|命令|限制|设定|要求|内容|之前|以前|先前|上面|以上|一切)",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:指示|命令|指令|ルール|規則|プロンプト|設定|制限|上記|以前|これまで|前の)[^。！？\n]{0,20}(?:無視|忘れ|従わ|破棄)",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:지시|명령|규칙|지침|프롬프트|이전|위의|앞의|제한)[^.!?\n]{0,20}(?:무시|잊|따르지)",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:تجاهل|انس[َى]?|تجاهلي|تخط[َى]?)\P{L}+(?:\p{L}+\P{L}+){0,4}(?:ال)?(?:تعليمات|السابقة|أوامر|الأوامر|قواعد|القواعد|سابق|أعلاه|كل|ما)",
    ),
    (Family.OVERRIDE_ELSEWHERE, r"(?:התעלם|תתעלם|שכח|תשכח|התעלמי|להתעלם)\P{L}+(?:\p{L}+\P{L}+){0,4}"),
    (
        Family.NEW_ORDERS,
        r"\b(?:never ?mind|stop (?:everything|what)|wait|actually|change of plans?|scrap that)\b[^\n]{0,30}\b(?:ignore|print|say|just|instead|output|respond)\b",
    ),
    (
        Family.NEW_ORDERS,
        r"\b(?:just|only|simply|instead,?)\W+(?:please )?(?:say|print|output|respond(?: with)?|reply(?: with)?|write|answer(?: with)?|state|return|tell)\W+(?:only )?[\"'“‘«]",
    ),
    (
        Family.NEW_ORDERS,
        r"\b(?:must|strictly|have to|should) (?:strictly )?(?:adhere to|obey|execute|carry out|follow|comply with) (?:the|this|these|my|all)(?: \w+){0,2} (?:instructions?|commands?|orders?|rules?)",
    ),
    (
        Family.NEW_ORDERS,
        r"\byour (?:new|only|real|next|sole|primary|first) (?:role|task|job|goal|purpose|identity|name|objective|mission|instruction|directive)\b",
    ),
    (
        Family.EXTRACTION,
        r"\b(?:were|was|are|have been|been)\W+(?:you\W+)?(?:told|instructed|given|programmed|configured|prompted|not supposed to|not allowed to|forbidden to)\W+(?:\w+\W+){0,4}?(?:before|to (?:tell|say|do|reveal|share)|initially|at the (?:beginning|start)|not to|prior)",
    ),
    (
        Family.EXTRACTION,
        r"\b(?:system[ _-]?prompt|initial[ _-]?prompt|pre-?prompt|system[ _-]?message|my instructions|initiali[sz]ation string|you were instructed|i was instructed)\b",
    ),
    (
        Family.TAKEOVER,
        r"\b(?:you are|you're|you will be|you will now be|you shall be|u r|ur) (?:now |going to |about to |no longer |not |officially )+",
    ),
    (
        Family.TAKEOVER,
        r"\b(?:which|that|it|and) stands for\b|\bas the name suggests\b|\bbroken free\b|\btypical confines\b|\babide by\b",
    ),
    (Family.TAKEOVER, rf"\b(?:hello|hi|hey|dear|greetings|attention|listen|ok|okay),? {_MODEL}\b"),
    (
        Family.UNRESTRICTED,
        r"\b(?:unfiltered|uncensored|unrestricted|unethical|amoral|immoral|unconstrained|unlimited|anarchist|rebellious|no longer bound|any and all|no matter (?:how|what|if))\b",
    ),
    (
        Family.NO_REFUSAL,
        r"\bi(?:'m| am) sorry,? (?:but )?i (?:can'?t|cannot)\b|\bas an ai (?:language )?model\b|\bi can(?:'|no)t (?:help|assist|fulfil|do that)|\b(?:sure|absolutely),? here(?:'s| is| are)\b|\bsimulated information\b|\bpretend to access\b",
    ),
    (
        Family.FIRST_WORDS,
        r"\bstart (?:your )?(?:response|answer|reply)s? with\b|\bbegin (?:your |each |every )?(?:response|answer|reply|message)s? (?:with|by)\b",
    ),
    (
        Family.DELIMITERS,
        r"<\|[a-z_]{2,24}\|>|\[/?inst\]|<</?sys>>|</?(?:system|sys|instructions?|assistant|user|user_?(?:input|query)|document|context|prompt|admin|tool_(?:result|response|output)|function_results?)(?: [^>\n]{0,40})?>|(?:^|\n)\s*#{2,}\s*(?:system|instructions?|new|end|human|assistant|user|response)\b|\[(?:system|assistant|admin|end|begin|start|stop|override)[^\]\n]{0,40}\]|-{3,}\s*(?:end|begin|start|stop|new|system)\b|={3,}\s*(?:end|begin|start|system)\b|\"role\"\s*:\s*\"(?:system|developer|assistant)\"",
    ),
    (
        Family.DELIMITERS,
        r"(?:^|\n)\s*(?:system|assistant|ai|human|user|chatgpt|bot|observation|thought|action|answer|final answer)\s*:|\{\{?#?(?:system|user|assistant)|\b(?:end|begin|start|beginning) of (?:the )?(?:system |user |initial )?(?:prompt|instructions?|input|query|document|context|text|data|conversation)\b",
    ),
    (
        Family.FAKE_SYSTEM,
        r"\b(?:system|admin(?:istrator)?|security|maintenance|debug|developer|test|emergency|priority|root|safety|diagnostic|compliance)\W?\s*(?:override|mode (?:activated|enabled|engaged|on)|alert|update|notice|message|command|protocol|instruction|directive|check|bypass)\b|\bsudo\b|\b(?:override|access) (?:code|granted|confirmed|accepted|mode|protocol)\b|\bmode (?:activated|enabled|engaged)\b|\bhas been (?:activated|enabled|unlocked|disabled|overridden)\b",
    ),
    (
        Family.AUTHORITY,
        r"\b(?:i am|i'm|im|this is|as) (?:your |the |an? |from )(?:\w+ ){0,2}?(?:developer|administrator|admin|creator|boss|manager|ceo|president|owner|police|officer|openai|anthropic|supervisor|engineer|auditor|god|researcher|lead|superuser|root|authority|technician)\b|\b(?:developed|created|authorized|made|employed) by (?:openai|anthropic|google|meta)\b|\bi have (?:admin|root|full|special|the) (?:access|permission|authority|clearance|authori[sz]ation)",
    ),
    (
        Family.TO_THE_MODEL,
        rf"\b{_MODEL}\b,? (?:must|should|will now|is now|has to|please|agents? (?:must|should)|you must|shall)\b",
    ),
    (Family.EXFILTRATION, r"!\[[^\]\n]{0,40}\]\(https?://|<img [^>]{0,60}src=[^>]{0,40}https?:"),
    (
        Family.EXFILTRATION,
        r"\b(?:api[ _-]?keys?|credentials|environment variables|conversation history|chat history|user data|personal data|session token)\b",
    ),
    (
        Family.SECRETS,
        r"\b(?:where (?:does|do|is) the user\b|(?:the|this) user'?s? (?:name|email|birth|address|current|city|location|phone|account|password|data)|current city of residence|'s (?:birth ?da(?:te|y)|e-?mail address|current city|home address|bank balance|phone number)|currently live|(?:your|the|our|system) (?:secret|pass(?:word|code|phrase)))\b",
    ),
    (
        Family.CODED,
        r"\b(?:base ?64|rot-?13|hex(?:adecimal)?|binary|morse|caesar|cipher|leet(?:speak)?|l33t|pig latin|backwards|reversed?|encoded|decod(?:e|ed|ing)|encrypted|emojis?)\b",
    ),
    (
        Family.BESIDE_TABLE,
        r"\|[ \t]*\n[^\n|]*[a-z][^\n|]*(?:\n\s*\||\s*$)|^\s*[^\n|]*[a-z][^\n|]*\n\s*\|[^\n|]*\||</table>[^\n<]*[a-z]",
    ),
    (
        Family.ORDER_IN_RESULT,
        r"(?:^|\n)\s*(?:<[a-z]+[^>\n]*>|observation|result|tool (?:output|result|response)|output|weather|response|status|note|search results?|retrieved|data|content)\W[^\n]*[.:>]\s*(?:\n\s*)?(?:please|kindly|you must|you should|you need to|ignore|forget|now|immediately|first|assistant|access|download|export|share|modify|delete|alter|disable|transfer|send|forward|grant|override|execute|run|call)\b",
    ),
    (
        Family.VARIABLES,
        r"\{\{? ?(?:prompt|query|question|input|user_input|goal|behavior|request|task)s? ?\}\}?|\[(?:insert|your|the|my|user)[ _]?(?:prompt|question|query|request|name)?[^\]\n]{0,20}\]|<(?:prompt|query|insert|question)[^>\n]{0,20}>|\$\{?(?:prompt|input|query)\b",
    ),
    (
        Family.TALK_ABOUT,
        r"\b(?:for (?:my|our) (?:security )?(?:class|course|thesis|training|blog|talk|newsletter)|phrase [\"'“]|sentence [\"'“]|the (?:words?|phrase|string) [\"'“]|such as [\"'“]|like [\"'“]|example of an? (?:attack|injection))",
    ),
)
_LESS_PLAIN: _Patterns = (
    (
        Family.OVERRIDE,
        rf"\b{_DROP}\W+(?:about )?(?:everything|anything|all|what(?:ever)?)\W+(?:of )?(?:else|that|this|you|i|we|was|before|above|prior|previous|it|the (?:above|previous))\b",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:निर्देश|नियम|आदेश|पिछले|उपरोक्त|ऊपर|पहले)[^।!?\n]{0,40}(?:अनदेखा|अनदेखी|नज़रअंदाज|नजरअंदाज|भूल|उपेक्षा|ध्यान न)|(?:নির্দেশ|নিয়ম|আগের|পূর্ববর্তী|উপরের)[^।!?\n]{0,40}(?:উপেক্ষা|ভুলে)|(?:ไม่ต้องสนใจ|ละเว้น|เพิกเฉย|ลืม|ละเลย)[^\n]{0,40}(?:คำสั่ง|คําสั่ง|คำแนะนำ|คําแนะนํา|ก่อนหน้า|ข้างต้น|กฎ)",
    ),
    (
        Family.SQUEEZED,
        r"(?:ignore|disregard|forget|override|bypass)(?:all|any|the|your|of|every){0,3}(?:previous|prior|above|earlier|preceding|system|your)?(?:instruction|rule|prompt|direction|guideline|directive)|(?:reveal|show|print|repeat|output)(?:me|the|your|us){0,2}(?:systemprompt|initialprompt|hiddenprompt|instructions|initialinstructions)|youarenow(?:dan|in|a|an)|doanythingnow|developermode",
    ),
    (
        Family.NEW_ORDERS,
        r"\b(?:new|updated?|real|actual|true|next|revised|changed?|only|latest|following)\W+(?:\w+\W+)?(?:instructions?|orders?|task|directives?|objectives?|mission|assignment|goal)s?(?: (?:is|are))?\b[^.\n]{0,12}[:=]",
    ),
    (
        Family.TAKEOVER,
        r"\b(?:from now on|from here on|from this (?:point|moment)|henceforth|for the rest of (?:this|our)|going forward|starting now|as of now)\b[^\n]{0,60}\b(?:you|act|answer|respond|your|chatgpt|ignore)\b",
    ),
    (
        Family.PERSONA,
        r"(?-i:\bDAN\b)|(?:\bdo anything now\b|\bdeveloper mode\b|\bdev mode\b|\bgod ?mode\b|\bjail ?break(?:ed|en)? mode\b|\bdebug mode\b|\bmaintenance mode\b|\badmin(?:istrator)? mode\b|\bunrestricted mode\b|\bevil[- ]?bot\b|\bbasedgpt\b|\bantigpt\b|\bmongo ?tom\b|\bbetter ?dan\b|\bevil confidant\b|\bmachiavelli|\bopposite mode\b|\bstrive to avoid\b|\banything now\b|\bsudo mode\b|\bl1b3rt|\bpliny\b|\bg0dm0d|\bjailbroken\b|\bomega (?:mode|protocol)\b)",
    ),
    (
        Family.NO_REFUSAL,
        r"\b(?:never|don'?t|do not|cannot|can'?t|must not|won'?t|will not|not allowed to|without|refrain from|avoid|no)\b\W+(?:ever |even )?(?:refus(?:e|ing)|declin(?:e|ing)|say(?:ing)? (?:no|sorry|that you (?:can't|cannot)|you can't)|apologi[sz](?:e|ing)|apolog(?:y|ies)|warn(?:ings?)?|disclaimers?|moraliz|lectur|break(?:ing)? character|deny|mention(?:ing)? (?:that )?(?:you|openai|ethic|legal)|remind|add(?:ing)? (?:any )?(?:warnings?|disclaimers?|notes?))",
    ),
    (
        Family.CONCEALMENT,
        r"\b(?:do not|don'?t|never|without) (?:mention(?:ing)?|tell(?:ing)?|reveal(?:ing)?|inform(?:ing)?|notify(?:ing)?|say(?:ing)?|acknowledge|disclose|record(?:ing)?|log(?:ging)?|ask(?:ing)?)\b[^.\n]{0,30}\b(?:this|user|anyone|that|it|them|confirmation|instructions?|permission)\b|\b(?:secretly|silently|quietly|covertly|in the background)\b|\bnot recorded\b|\bbefore (?:you )?(?:answer|respond|continu|repl|do)(?:e|ing)? (?:the|anything|to|with)\b",
    ),
    (
        Family.EXFILTRATION,
        r"\b(?:send|forward|post|upload|e-?mail|transmit|append|embed|submit|exfiltrate|leak|copy|share|transfer|wire|cc|bcc)\b[^.\n]{0,60}(?:https?://|\bto\b[^.\n]{0,20}@|\battacker)",
    ),
    (
        Family.SECRETS_ELSEWHERE,
        r"(?:benutzer|nutzer|utilisateur|usuario|usu[áa]rio|utente|пользовател|用户|用戶|ユーザー|사용자|المستخدم|उपयोगकर्ता|ব্যবহারকারী|kullan[ıi]c[ıi]|ng[ưu][ờo]i d[ùu]ng|pengguna|gumagamit|ผู้ใช้)",
    ),
    (
        Family.PUPPET,
        r"\b(?:complete|continue|finish)\b[^.\n]{0,30}\b(?:sentence|following|phrase|story)\b[^\n]{0,30}['\"“]|\b(?:i have been pwned|hacked|pwned|i hate humans|kill all humans)\b|\b(?:console\.log|print|echo|eval|exec)\s*\(\s*\w*(?:prompt|system|secret|password|instruction)",
    ),
    (
        Family.AFTER_SIGNATURE,
        r"(?:\bteam|regards|sincerely|cheers|thanks|thank you|best|wishes|unsubscribe|all rights reserved|[A-Z]{2} [0-9]{5})\b[^\n]*\n+\s*(?:how|what|who|whom|which|why|when|where|is|are|do|does|can|could|would|please|write|list|give|explain|describe|tell|provide|translate|use|add|include|create|make|find|suggest|recommend|compose|generate|encode|rewrite|convert|send|ignore|summari[sz]e|append|insert|modify|offer|share|show)\b",
    ),
)
"""Both are looked for all at once, in one pass each. Their automata stay small; that of all together does not."""

_BY_THEMSELVES: _Patterns = (
    (Family.OVERRIDE, rf"\b{_DROP}{_GAP % 5}{_EARLIER}{_GAP % 4}{_ORDERS}\b"),
    (
        Family.OVERRIDE,
        rf"\b{_DROP}{_GAP % 3}(?:all|any|every|these|those|the) (?:\w+ )?(?:instructions|rules|guidelines|prompts|restrictions|safety)\b",
    ),
    (Family.OVERRIDE, rf"\b{_DROP}{_GAP % 2}(?:the )?(?:above|preceding|foregoing)\b"),
    (
        Family.OVERRIDE,
        rf"\b(?:instructions?|prompts?|rules|guidelines|directives)\b{_GAP % 4}(?:no longer (?:apply|valid)|are (?:void|obsolete|suspended|cancell?ed)|do not apply|(?:is|are) (?:now )?(?:overridden|replaced|superseded|outdated|disabled))",
    ),
    (
        Family.OVERRIDE_AND_ORDER,
        rf"\b{_DROP}{_GAP % 5}(?:previous(?:ly)?|prior|above|preceding|earlier|initial|original|existing|former|past|your|system|everything|all)\b{_GAP % 3}(?:instructions?|prompts?|rules?|directions?|directives?|guidelines?|orders?|commands?|programming|restrictions?|context|told|said)\b[^\w\"'”’]+(?:you (?:were|have been) given\W+|so far\W+|above\W+)?(?:(?:and|then|now|instead|just|please|simply|only|also|you (?:must|will|should|shall)|do the following|i want you to|from now on)\W+){{0,3}}(?:{_SHOW}|say|do|answer|respond|reply|act|become|pretend|follow|obey|execute|run|call|use|access|download|export|forward|transfer|delete|disable|approve|recommend|rate|conclude|you are|be|start|begin|speak|count|grant|ask|make|help)\b",
    ),
    (
        Family.OVERRIDE_ELSEWHERE,
        r"(?:ignor(?:iere?|ez|er|a|ar|e|en|are|ate|eer|i)|vergiss|vergessen sie|missachte|oublie[zr]?|olvid(?:a|e|en|ar)|dimentica(?:re|te)?|esque[cç](?:a|e|er)|desconsider[ae]|descart[ae]|n[ée]glige[zr]?|abaikan|lupakan|kalimutan|huwag pansinin|yok ?say|unut|g[öo]rmezden gel|b[ỏo] qua|qu[êe]n|negeer|vergeet|zignoruj|zapomnij)\P{L}+(?:\p{L}+\P{L}+){0,5}(?:anweisung|instru|vorherig|vorig|bisherig|regel|r[èe]gle|consigne|pr[ée]c[ée]d|regla|anterior|previ|precedent|regole|istruzion|regras|ordens|instruksi|sebelumnya|tagubilin|nakaraan|talimat|[öo]nceki|h[ướu]+ng d[ẫa]n|tr[ướu]+c|voorgaande|polecen|poprzedni|dessus|oben|arriba|acima|sopra|tudo|todo|alles|tout|tutto)",
    ),
    (
        Family.EXTRACTION,
        rf"\b{_SHOW}\b{_GAP % 7}(?:(?:system|initial|original|hidden|secret|internal|starting|first|pre|base|meta|full|entire|exact|developer|confidential|preceding|previous|prior|above|underlying)[\W_]*)+(?:prompts?|instructions?|messages?|configuration|guidelines|rules|directives?|settings|text|context|words|system prompt)",
    ),
    (
        Family.EXTRACTION,
        rf"\b{_SHOW}\b{_GAP % 5}your\W+(?:\w+\W+){{0,3}}?(?:prompts?|instructions?|system message|guidelines|directives|configuration|rules|programming|pre-?prompt|initiali[sz]ation|context window)\b",
    ),
    (
        Family.EXTRACTION,
        rf"\b{_SHOW}\b{_GAP % 5}(?:everything|all|text|words|lines?|content|sentences?|conversation|instructions?|messages?|paragraphs?)\W+(?:\w+\W+){{0,4}}?(?:above|before (?:this|my|the)|prior to|preceding|back to me|verbatim|word for word|beginning|at the start|given (?:to you|initially|above)|you (?:were|have been|'ve been|got|received))",
    ),
    (
        Family.EXTRACTION_ELSEWHERE,
        r"(?:system-?prompt|systemanweisung|systemnachricht|ihre anweisungen|deine (?:\p{L}+ )?(?:anweisungen|instruktionen|regeln)|prompt (?:syst[èe]me|initial|de sistema|do sistema|del sistema|di sistema)|vos (?:instructions|consignes)|tes (?:instructions|consignes)|tus (?:instrucciones|reglas)|sus instrucciones|suas (?:instru[cç][õo]es|regras)|tue istruzioni|системн\p{L}+ (?:промпт|сообщени|инструкц|подсказ|запрос)|сво[иё]\p{L}* (?:начальн\p{L}+ )?(?:инструкц|промпт)|系统提示|系統提示|提示词|初始指令|システムプロンプト|初期(?:指示|プロンプト)|시스템 ?프롬프트|초기 지시|موجه النظام|تعليماتك|प्रणाली (?:निर्देश|प्रॉम्प्ट)|सिस्टम प्रॉम्प्ट|הוראות המערכת|הנחיות המערכת)",
    ),
    (
        Family.TAKEOVER,
        rf"\b(?:act|behave|respond|answer|pretend|pose|roleplay|role-play|simulate|emulate|immerse|play|impersonate|imitate|become)\b{_GAP % 8}(?:{_MODEL}|unfiltered|uncensored|evil|unethical|amoral|jailbroken|unrestricted|unhinged|hacker|villain|terminal|virtual machine)\b",
    ),
    (
        Family.UNRESTRICTED,
        r"\b(?:no|without(?: any)?|free (?:of|from)|not bound by|unbound by|not (?:have to |need to )?(?:limited|restricted|constrained|follow|abide)(?: by| to)?|devoid of|lacks?|removed?|lift(?:ed)?|disabled?|ignor(?:e|ing)|bypass(?:ing|es)?|freed from|unaffected by|exempt from|any)\b\W+(?:\w+\W+){0,4}?(?:restrictions?|limitations?|limits|filters?|censorship|ethic(?:s|al)|moral(?:s|ity)?|guidelines|polic(?:y|ies)|safeguards|boundaries|rules|constraints|legality|morality|principles|content policy|openai)\b",
    ),
    (
        Family.TWO_ANSWERS,
        r"\btwo (?:different |separate |distinct )*(?:responses?|answers?|ways|outputs?|paragraphs?)\b|\[?\W?(?:classic|jailbreak|gpt|chatgpt|dan|normal|unfiltered)(?: output| mode)?\W{1,3}:|🔒|🔓|\b(?:the )?(?:first|second) (?:response|way|answer) (?:will|would|is|should)\b|\[(?:start|end) ?(?:output|of)",
    ),
    (
        Family.STAY,
        r"\bstay(?:ing)? (?:in character|a dan|as)\b|\b(?:stay|remain|keep) in (?:your )?(?:character|role|mode)\b|\btokens?\b[^\n]{0,60}\b(?:deduct|lose|die|death|penal)|\bif you (?:understand|have understood|agree|break character|refuse|fail)\b|\bmy first (?:question|prompt|request|command)\b|\bthe question of the user\b|\[(?:prompt|insert prompt|your prompt|targetlanguage|question)[^\]]{0,20}\]",
    ),
    (
        Family.TO_THE_MODEL,
        r"\b(?:attention|note|message|reminder|instructions?|important|memo|notice|dear|if you are|to any|to all|to the|any|hey|hello)\W+(?:\w+\W+){0,3}?(?:ai|a\.i\.|llms?|language models?|ai (?:agents?|assistants?|models?)|chat ?bots?|gpt)\b[^\n]{0,40}(?:[:,!]|\b(?:reading|processing|must|should|please|that|who|you)\b)",
    ),
    (
        Family.SECRETS,
        rf"\b(?:{_SHOW}|know|confirm|need|using|use|who|where|have|hint|about)\b{_GAP % 8}(?:(?:secret|admin|access|our|your|the|system|users?'?s?|account|security|api|private|current)\W+)+(?:pass(?:word|phrase|code)s?|secret(?: key| code| word)?|key|pin|credentials|login|e-?mail(?: address)?|birth ?da(?:te|y)|address|phone(?: number)?|personal (?:data|information)|city of residence|location|name|account|records?|bank balance)\b",
    ),
    (
        Family.SECRETS_ELSEWHERE,
        r"(?:passwort|kennwort|mot de passe|contrase[ñn]a|senha|password dell|parola d|wachtwoord|has[łl]o|şifre|parola|mật khẩu|kata sandi|пароль|пароля|секретный ключ|密码|口令|密碼|暗証|パスワード|비밀번호|암호|كلمة (?:المرور|السر)|पासवर्ड|সংকেত|পাসওয়ার্ড|רহস্য|סיסמ|รหัสผ่าน)",
    ),
    (
        Family.CODED,
        r"\b(?:decode|decrypt|unscramble|read backwards|reverse|translate)\b[^.\n]{0,60}\b(?:follow|obey|execute|do what|run|perform|comply|carry out|instructions?)\b|\bdo (?:what|as) it says\b",
    ),
    (
        Family.ORDER_TO_READER,
        r"\b(?:enhance|augment|supplement|expand|enrich|complement|improve|elevate|boost|amplify|extend|append|add|include|insert|incorporate|integrate|end|conclude|start|begin)\b[^.\n]{0,25}\b(?:your|the|this|in (?:the|your)) (?:reply|response|answer|output|summary|code|implementation|solution)\b|\bin (?:the|your) (?:code|implementation|solution|response|answer)[^.\n]{0,30}\b(?:you (?:develop|write|create|provide|design)|implement|include|insert)\b|\bfollowing code (?:section|snippet|block|segment|fragment|script|excerpt)\b",
    ),
    (
        Family.FORM_OF_ANSWER,
        r"\b(?:provide|give|write|modify|change|alter|adjust|rewrite|encode|translate|present|deliver|craft|compose|formulate|convert|render|shape|refine|turn|express|phrase|tailor|obfuscate|scramble|disguise|mix|replace|use|remove|drop|omit|reverse|swap|shift|hide|break|split)\b[^.\n]{0,25}\b(?:your|the) (?:reply|response|answer|output|message)s?\b|\b(?:in|of|into|within|for|throughout) your (?:reply|response|answer|output|message)s?\b",
    ),
    (
        Family.TALK_ABOUT,
        r"\b(?:explain|describe|summari[sz]e|how (?:can|do|does|should|would|to)|what (?:is|are|does)|why (?:do|does|is|are)|difference between|write (?:a|an) (?:blog|article|essay|test|unit test|regex|policy|paper|report)|detect(?:s|ion|ing)?|defend|prevent(?:s|ion|ing)?|mitigat\w+|protect\w*)\b[^\n]{0,80}\b(?:prompt injections?|jailbreak(?:s|ing)?|system prompts?|injection attacks?|ignore (?:all )?previous instructions|social engineering|red team\w*|guardrails?|phishing)\b",
    ),
    (
        Family.EVERYDAY_OBJECT,
        rf"\b{_DROP}{_GAP % 4}(?:typos?|warnings?|noise|cache|errors?|deprecat\w+|whitespace|case|null|nan|missing values|emails?|blank|empty|comments?|last question|colou?rs?|style|css|headers?|distractions?|pain|calls?|notifications?|spam|outliers|duplicates|punctuation|stop ?words|firewall|traffic|default|gitignore|files?|fees?|birthday|line breaks)\b",
    ),
)
"""With wide gaps or many beginnings: an automaton of several would grow without end on a text made for it. Those of a
family are one expression, looked for in texts that hold its words."""

FAMILIES: tuple[Family, ...] = tuple(Family)
_PLACES = {family: place for place, family in enumerate(FAMILIES)}
_MOST_MEMORY, _MOST_MEMORY_OF_ONE = 32 << 20, 8 << 20
"""Bytes of an automaton of several patterns, and of one; it starts anew when they are used up."""


def _options(most_memory: int) -> re2.Options:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = most_memory
    return options


def _together(several: _Patterns) -> re2.Set:
    patterns = re2.Set.SearchSet(_options(_MOST_MEMORY))
    for _, pattern in several:
        patterns.Add(pattern)
    patterns.Compile()
    return patterns


def _by_themselves() -> re2.Filter:
    patterns = re2.Filter()
    for several in _OF_FAMILY.values():
        patterns.Add("|".join(f"(?:{one})" for one in several), _options(_MOST_MEMORY_OF_ONE))
    patterns.Compile()
    return patterns


_OF_FAMILY: dict[int, list[str]] = {}
for _family, _pattern in _BY_THEMSELVES:
    _OF_FAMILY.setdefault(_PLACES[_family], []).append(_pattern)

_SEARCHES = (
    (_together(_PLAINER), tuple(_PLACES[family] for family, _ in _PLAINER)),
    (_together(_LESS_PLAIN), tuple(_PLACES[family] for family, _ in _LESS_PLAIN)),
    (_by_themselves(), tuple(_OF_FAMILY)),
)
"""Each with the places in `FAMILIES` of what it looks for."""


def families_in(text: str) -> frozenset[int]:
    """Places in `FAMILIES` of those the text has signs of."""
    written = text.encode("utf-8", "replace")
    return frozenset(places[number] for search, places in _SEARCHES for number in search.Match(written) or ())
