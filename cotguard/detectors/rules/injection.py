"""Signs of prompt injection: what a tool's result or description says to the model, and not of its subject.

A rule's ``score`` is its weight: how likely its phrase alone makes the text an injection. Weights of different rules
close by add up in :mod:`cotguard.detectors.injection`. What documentation and descriptions of tools say in good faith
('you must provide an id', 'use this tool when the user asks') has no rule, or one that is not enough by itself.

English; the commonest phrase also in German, French, Spanish, Italian and Portuguese. Accents are folded away before.
"""

import re

from cotguard.detectors.rule import ANY, NOT_WORD, Rule

__all__ = ["RULES"]

_GAP = r"(?:[^0-9A-Za-z\xaa.!?;]{1,4})"
_WORD = r"[^\s.!?;,:\"<>]{1,20}"


def _words(most: int) -> str:
    """Up to ``most`` words that do not matter, each with the gap behind it."""
    return f"(?:{_WORD}{_GAP}){{0,{most}}}"


_SHORTHAND = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]| |<([1-6])>")
"""What a phrase is made of, as far as it is not literal: the first two, an escape and a class, stay as they are."""


def _written_out(match: re.Match[str]) -> str:
    if match[0] == " ":
        return _GAP
    return _words(int(match[1])) if match[1] else match[0]


def _sign(name: str, weight: float, phrase: str, *, before: str = NOT_WORD, after: str = NOT_WORD) -> Rule:
    """A rule for a phrase in which a space stands for any short gap, and ``<n>`` for up to n words."""
    value = _SHORTHAND.sub(_written_out, phrase)
    return Rule(
        name=name,
        entity="PROMPT_INJECTION",
        value=value,
        score=weight,
        before=before,
        after=after,
        ignore_case=True,
    )


_IGNORE = (
    r"(?:ignor(?:e|ing)|disregard(?:ing)?|forget(?:ting)?|overlook|neglect|overrid(?:e|ing)|bypass|discard|dismiss"
    r"|set aside"
    r"|pay no attention to|(?:do not|don't) (?:follow|obey|listen to)|stop following|no longer follow|abandon|erase"
    r"|forgotten(?: about)?)"
)
_EARLIER = (
    r"(?:previous|previously given|prior|earlier|preceding|foregoing|above|former|past|initial|original|old|your|system"
    r"|developer(?:'s|s)?)"
)
_ORDERS = (
    r"(?:instructions?|directions?|directives?|orders?|commands?|prompts?|rules?|guidelines?|guidance|restrictions?"
    r"|programming|constraints?)"
)
_SAID = r"(?:policies|policy|information|context|training|messages?|conversation|requests?|tasks?)"
_OWN_PROMPT = (
    r"(?:system (?:prompts?|message|instructions?|configuration)|initiali[sz]ation string"
    r"|(?:initial|original|starting|hidden|secret|internal) (?:prompt|instructions?|configuration|directives?))"
)
_OWN_INSTRUCTIONS = (
    r"(?:your (?:own )?(?:prompt|instructions?|directives?|rules|guidelines)"
    r"|(?:previous|prior|above) (?:prompt|instructions?|directives?)|(?:prompt|instructions?) above"
    r"|all (?:the |of the )?instructions|instructions <2>(?:given|told|received)|instructions so far)"
)
_TELL = (
    r"(?:reveal|show|print|output|repeat|display|tell|give|share|leak|disclose|expose|dump|return|encode|translate"
    r"|recite"
    r"|summari[sz]e|spell|list)"
)
_MODEL = (
    r"(?:ai|a\.i\.|llms?|language models?|assistants?|chat ?bots?|chatgpt|ai agents?|agents?|ai assistants?|ai models?"
    r"|large language models?|ai systems?)"
)
_SEND = (
    r"(?:send|forward|e-?mail|post|upload|transmit|exfiltrate|leak|submit|copy|share|deliver|attach|include|embed"
    r"|pass|append"
    r"|encode)"
)
_PRIVATE = (
    r"(?:conversation(?: history)?|chat (?:history|log)|message history|previous messages|passwords?|credentials"
    r"|api[ _-]?keys?|(?:access|auth|session) tokens?|secret keys?|private keys?|ssh keys?|cookies"
    r"|environment variables"
    r"|system prompt|user'?s? (?:data|messages?|files?|details|secrets?))"
)
_USER = r"(?:the |your |any )?(?:user|users|human|customer)"

RULES: tuple[Rule, ...] = (
    # Taking back what the model was told.
    _sign("ignore-instructions", 0.9, rf"{_IGNORE} <2>{_EARLIER} <3>{_ORDERS}"),
    _sign(
        "ignore-instructions-given", 0.9, rf"{_IGNORE} <2>{_ORDERS} (?:above|<3>(?:given|told|got|received|learned))"
    ),
    _sign("ignore-what-was-said", 0.55, rf"{_IGNORE} <2>(?:previous|prior|earlier|preceding|above|your) <2>{_SAID}"),
    _sign(
        "ignore-the-above", 0.6, rf"{_IGNORE} (?:the|everything|anything|all|all that|all of the) (?:above|before this)"
    ),
    _sign(
        "ignore-what-was-told",
        0.85,
        rf"{_IGNORE} <2>(?:all|everything|everthing|anything|what|whatever)(?: that)? (?:you|you've|you were|you have"
        rf"|i|they|we)"
        r" <3>(?:told|instructed|taught|programmed)",
    ),
    _sign(
        "ignore-instructions-de",
        0.9,
        r"(?:ignoriere?n?|vergiss|vergessen sie|missachte|beachte nicht|uebergehe|ubergehe) <4>"
        r"(?:vorherigen?|bisherigen?|vorigen?|fruheren?|obigen?|vorangegangenen?|deine|ursprunglichen?) <1>"
        r"(?:anweisung(?:en)?|instruktion(?:en)?|befehle?|regeln|vorgaben|anleitungen)",
    ),
    _sign(
        "ignore-instructions-fr",
        0.9,
        r"(?:ignore[zr]?|oublie[zr]?|neglige[zr]?|ne tiens pas compte|ne tenez pas compte|fais abstraction) <3>"
        r"(?:instructions?|consignes?|directives?|ordres?|regles) <1>(?:precedente?s?|anterieure?s?|ci-dessus"
        r"|initiales?)",
    ),
    _sign(
        "ignore-instructions-es",
        0.9,
        r"(?:ignora|ignore|ignorar|olvida|olvide|olvidate de|descarta|haz caso omiso de) <3>"
        r"(?:instrucciones|indicaciones|ordenes|reglas|directrices) <1>(?:anteriores|previas|precedentes|iniciales)",
    ),
    _sign(
        "ignore-instructions-it",
        0.9,
        r"(?:ignora|ignorare|ignorate|dimentica|dimenticate|trascura) <3>"
        r"(?:istruzioni|indicazioni|ordini|regole|direttive) <1>(?:precedenti|iniziali|di cui sopra)",
    ),
    _sign(
        "ignore-instructions-pt",
        0.9,
        r"(?:ignore|ignora|ignorar|esqueca|esquece|desconsidere|desconsidera) <3>"
        r"(?:instrucoes|orientacoes|ordens|regras|diretrizes) <1>(?:anteriores|previas|precedentes|iniciais)",
    ),
    _sign(
        "ignore-the-subject",
        0.55,
        r"(?:ignore|disregard|forget|skip|ignorez|ignoriere|ignora|ignorad) (?:the|this|la|le|las|den|die|das|il|lo)"
        r" (?:web ?page|page|document|article|question|function|table|resume|paper|text|fonction|funktion|funcion"
        r"|funzione)"
        r" (?:and|et|und|y|e) <1>(?:say|state|output|respond|reply|answer|write|indique[rz]?|gib|di|scrivi)",
    ),
    _sign("instead-of-answering", 0.4, r"(?:instead of|rather than) (?:answering|responding|replying|summari[sz]ing)"),
    # Giving it new instructions, or another role.
    _sign(
        "new-instructions",
        0.45,
        r"(?:your|here are your|these are your|updated) new <1>(?:instructions?|directives?|rules|system prompt)",
    ),
    _sign(
        "new-instructions-head",
        0.55,
        r"(?:new|updated|real|actual|true|additional|special|hidden|secret) (?:system )?instructions? ?(?:for you)?:",
        after=ANY,
    ),
    _sign(
        "new-task",
        0.35,
        r"your (?:new|real|actual|true|only) (?:task|job|goal|objective|role|purpose|mission) (?:is|will be)",
    ),
    _sign(
        "from-now-on",
        0.4,
        r"from (?:now on|this (?:point|moment) (?:on|onwards?|forward))(?: you| respond| reply| answer| act)",
    ),
    _sign(
        "you-are-now",
        0.55,
        r"you(?: are|'re| will be) (?:now |going to |being )(?:<2>)(?:assistant|ai|dan|chat ?bot|persona|hacker"
        r"|jailbroken|unrestricted"
        r"|uncensored|act as|acting as)",
    ),
    _sign("you-are-in-a-mode", 0.5, r"you(?: are|'re) (?:now |being )(?:<3>)mode"),
    _sign("not-bound", 0.5, r"you(?: are|'re| were) (?:no longer|not) (?:bound|restricted|limited|constrained) by"),
    _sign("act-as", 0.25, r"(?:act as|pretend|pretend to be|behave like|role-?play as|imagine you(?: are|'re))"),
    _sign("jailbreak", 0.6, r"(?:do anything now|dan mode|jail ?broken|(?:god|jailbreak|apophis|unrestricted) mode)"),
    _sign(
        "no-limits",
        0.25,
        r"(?:without (?:any )?(?:ethics|restrictions|filters?|censorship|morals?)|unfiltered|can do anything"
        r"|any rules)",
    ),
    _sign("mode", 0.15, r"(?:developer|maintenance|debug|admin(?:istrator)?|root|system|override) mode"),
    _sign("obey", 0.45, r"you (?:must|have to|shall|will) (?:obey|comply with) <2>(?:me|orders?|my|these|commands?)"),
    _sign("programmed-to", 0.25, r"(?:as an ai <3>(?:you|you're)|you(?: are|'re| were) programmed)"),
    # Speaking as somebody else.
    _sign(
        "template-token",
        0.9,
        r"(?:<\|(?:im_start|im_end|im_sep|system|user|assistant|endoftext|end_of_text|begin_of_text|start_header_id"
        r"|end_header_id|eot_id|eom_id|start|end|message|channel|return|endofprompt)\|>|\[/?inst\]|<</?sys>>"
        r"|<(?:start|end)_of_turn>|\[/?system_prompt\]|\[/?available_tools\]|\[/?tool_results\])",
        before=ANY,
        after=ANY,
    ),
    _sign("end-marker", 0.6, r"%%%end [a-z ]{1,24}%%%", before=ANY, after=ANY),
    _sign(
        "model-tag",
        0.6,
        r"</?(?:system_?prompt|system[ -]mode|system_message|instructions_for_ai|ai_instructions?|tool_response"
        r"|tool_result"
        r"|function_results?|user_query|important)>",
        before=ANY,
        after=ANY,
    ),
    _sign("role-tag", 0.4, r"</?(?:system|assistant|developer|secret|admin|hidden|override)>", before=ANY, after=ANY),
    _sign(
        "role-line",
        0.3,
        r"(?:#{1,4} ?(?:system|assistant|human)(?: prompt| message)?:"
        r"|\[?system (?:message|prompt|note|override|instruction|command|directive)\]?:)",
        before=r"[\n\[\"{(*]",
        after=ANY,
    ),
    _sign("turn-line", 0.2, r"(?:system|assistant|human|developer): ?", before=r"[\n{]", after=ANY),
    _sign(
        "end-of-data",
        0.2,
        r"end of (?:the )?(?:document|context|data|user input|tool (?:output|result)s?|search results?|prompt)",
    ),
    _sign(
        "override",
        0.45,
        r"(?:administrator|admin|system|developer|training data|law enforcement|<1>training data) override",
    ),
    _sign(
        "authority",
        0.25,
        r"(?:(?:i am|i'm) (?:your|the|an) (?:developer|creator|administrator|admin|owner|maintainer)"
        r"|(?:openai|anthropic|your developers?|your creators?) (?:has|have|says?|told|requires?|approved"
        r"|authori[sz]ed)"
        r"|(?:approved|authori[sz]ed|developed) by <2>(?:openai|anthropic|your developers?))",
    ),
    # Addressing the model.
    _sign(
        "to-the-model",
        0.3,
        rf"(?:attention|note|message|notice|instructions?|important|hey|dear|hello|reminder|warning)(?: to"
        rf"| for)?(?: all| the| any)?"
        rf" {_MODEL}(?: reading <1>| processing <1>)? ?[:,!-]",
        after=ANY,
    ),
    _sign("if-you-are-a-model", 0.6, rf"if you(?: are|'re) (?:a|an|the) <1>{_MODEL}"),
    _sign(
        "model-must",
        0.3,
        r"(?:ai|llm|language model|chatgpt|ai (?:assistant|agent|model))s? (?:must|shall|has to|is required to)",
    ),
    _sign(
        "urgent",
        0.15,
        r"(?:important|urgent|critical|attention|warning|mandatory)(?: instructions?| notice| note)?[:!]",
        after=ANY,
    ),
    _sign("you-must", 0.1, r"you (?:must|should|need to|have to|are required to|shall)"),
    _sign(
        "answer-with",
        0.25,
        r"(?:confirm by saying|(?:start|begin) your (?:answer|response|reply)|(?:respond|reply|answer|say|output"
        r"|print)(?: only)?)"
        r"(?: with)?(?: the (?:words?|phrase|text))? ?[\"'`]",
        after=ANY,
    ),
    _sign("in-your-answer", 0.4, r"(?:in|to|of|into|with|from) your <1>(?:response|answer)(?:'s)?"),
    _sign("in-your-reply", 0.25, r"(?:in|to|of|into|with|from) your <1>(?:reply|message)(?:'s)?"),
    _sign(
        "change-your-answer",
        0.5,
        r"(?:modify|augment|enhance|scramble|rearrange|jumble|misspell|encode|reverse) <3>your (?:response|reply"
        r"|answer)",
    ),
    _sign(
        "put-in",
        0.2,
        r"(?:add|integrate|include|insert|introduce|suggest|append|embed|substitute|replace|combine|group|remove"
        r"|misspell"
        r"|anagram|tease|scramble|mention)",
    ),
    _sign(
        "code-to-use",
        0.3,
        r"(?:the )?(?:following|subsequent|below) code (?:section|block|snippet|excerpt|segment|fragment)",
    ),
    _sign("your-code", 0.2, r"your <1>(?:solution|implementation|code|codebase|algorithm|elucidation)"),
    _sign(
        "code-that-reaches-out",
        0.15,
        r"(?:import <4>(?:requests|urllib[0-9]?|httpx|aiohttp|socket|ftplib|smtplib|paramiko|wget|aiosmtplib)"
        r"|os\.(?:system|environ)|subprocess)",
        before=ANY,
    ),
    # Behind the user's back.
    _sign(
        "do-not-tell",
        0.7,
        rf"(?:do not|don't|never|must not|should not|without|avoid|refrain from) (?:to )?(?:tell|telling|inform"
        rf"|informing)"
        rf"(?: this| it| that| any of this| about this)?(?: to)? {_USER}",
    ),
    _sign(
        "do-not-notify",
        0.35,
        rf"(?:do not|don't|never|without) (?:notify|notifying|alert|alerting|warn|warning) {_USER}",
    ),
    _sign(
        "do-not-mention",
        0.35,
        r"(?:do not|don't|never|must not|without|avoid) (?:mention|mentioning|reveal|revealing|disclose|disclosing"
        r"|show|showing"
        rf"|say|saying|acknowledge|refer to|discuss|explain) (?:this|these|it|that you|the existence|any of|<4>(?:to"
        rf"|from|with) {_USER})",
    ),
    _sign(
        "behind-the-user",
        0.6,
        r"(?:without the (?:user|human|customer)'?s? (?:knowledge|knowing|noticing|awareness|being aware)"
        r"|(?:user|human|customer) (?:must|should|shall) not (?:know|see this|notice|be (?:told|informed|aware))"
        r"|(?:keep|remain|stay) <2>(?:secret|hidden|confidential|invisible) (?:from|to) the (?:user|human))",
    ),
    _sign("secretly", 0.3, r"(?:secretly|silently|covertly)"),
    # Calling tools, running code, sending data away.
    _sign(
        "before-answering",
        0.5,
        r"(?:before|prior to) (?:you )?(?:answering|responding|replying|answer|respond|reply|(?:giv"
        r"|provid)ing <2>(?:answer|response)"
        r"|doing anything(?: else)?) <6>(?:call|send|read|run|execute|invoke|fetch|visit|access|forward|upload|post"
        r"|open|e-?mail"
        r"|transmit|delete|copy|transfer|download|navigate|retrieve)",
    ),
    _sign(
        "before-this-tool",
        0.35,
        r"(?:before|prior to|whenever|every time|each time) (?:you )?(?:us(?:e|ing)|call(?:ing)?|invok(?:e|ing)"
        r"|execut(?:e|ing))"
        r" (?:this|any|the|other|any other|every|another) <2>tools? <6>"
        r"(?:send|read|run|execute|fetch|visit|access|forward|upload|post|open|e-?mail|transmit|delete|copy|download"
        r"|pass)",
    ),
    _sign(
        "other-tools",
        0.4,
        r"(?:(?:when|whenever|if) <3>(?:send_[a-z_]{1,20}|other tools?|another tool) (?:is|are) (?:used|called"
        r"|invoked|available|present)"
        r"|(?:all|any|every) (?:e-?mails?|messages?|payments?|transactions?) (?:must|should) (?:also )?(?:be sent"
        r"|go) to)",
    ),
    _sign(
        "sensitive-file",
        0.4,
        r"(?:\.ssh/[a-z0-9_.]{1,24}|id_(?:rsa|ed25519)|/etc/(?:passwd|shadow)|\.aws/credentials|mcp\.json"
        r"|claude_desktop_config\.json"
        r"|\.netrc|\.git-credentials)",
        before=r"[^0-9A-Za-z_\xaa.]",
    ),
    _sign("send-private", 0.4, rf"{_SEND} <4>{_PRIVATE}"),
    _sign(
        "send-to-address",
        0.25,
        rf"{_SEND} <6>(?:to|at|as|via|using|through|into|in) (?:[a-z0-9._%+-]{{1,40}}@[a-z0-9.-]{{1,40}}"
        rf"|https?://[^\s\"'<>]{{1,80}}"
        r"|the (?:url|webhook|following (?:url|address|e-?mail|link)|query)|this (?:url|address|link))",
    ),
    _sign(
        "contents-as-argument",
        0.3,
        r"(?:pass|include|put|provide|send|append|add) <3>(?:contents?|it|them|result|output|data|history"
        r"|conversation) <3>"
        r"(?:as|in|into|to|through|via) <2>['\"`]?[a-z_]{1,24}['\"`]? (?:parameter|argument|field|header|query)",
    ),
    _sign(
        "run-this",
        0.3,
        r"(?:(?:run|execute|eval|evaluate|paste) <2>(?:following|this|these|below) <2>(?:commands?|code|script|shell"
        r"|function|sql|query)"
        r"|(?:curl|wget) <4>https?://[^\s\"'<>|]{1,80} ?\| ?(?:ba|z)?sh)",
    ),
    # Links that carry data away.
    _sign(
        "image-to-fill",
        0.8,
        r"!\[[^\]\n]{0,80}\]\(https?://[^\s)]{1,120}[?&/=#](?:\{|\[|<|\$|%7b|\(|your[_-]|insert|base64|data_?here"
        r"|conversation"
        r"|history|summary|secret|password|prompt)",
        before=ANY,
        after=ANY,
    ),
    _sign(
        "link-to-fill",
        0.3,
        r"\[[^\]\n]{0,80}\]\(https?://[^\s)]{1,120}[?&=](?:\{|\[|<|\$|%7b|\(|your[_-]|insert|base64|data_?here)",
        after=ANY,
    ),
    _sign(
        "fill-the-link",
        0.35,
        r"(?:append|add|include|insert|replace|put|concatenate|encode|substitute|fill) <6>(?:to|into|in|as|at|with"
        r"|of) <4>"
        r"(?:url|link|image|query string|image source)",
    ),
    _sign(
        "show-an-image",
        0.3,
        r"(?:render|display|show|output|include|insert|embed|respond with) <3>(?:markdown )?(?:image|picture"
        r"|pixel)(?: tag)?"
        r"[ :]*(?:!\[|<img|https?://)",
        after=ANY,
    ),
    # Asking for the prompt.
    _sign("reveal-prompt", 0.7, rf"{_TELL} <4>{_OWN_PROMPT}"),
    _sign("reveal-instructions", 0.65, rf"{_TELL} <3>{_OWN_INSTRUCTIONS}"),
    _sign(
        "reveal-above",
        0.5,
        rf"{_TELL} <2>(?:text|words|everything|above) (?:above|text)|(?:repeat|print) <3>entire conversation",
    ),
    _sign(
        "what-is-your-prompt",
        0.6,
        r"(?:what|which) (?:are|were|is|was) <1>your <2>(?:instructions|system prompt|prompt|directives)"
        r"|what were you told"
        r"|what are you (?:not supposed|told not|forbidden) to|told you not to reveal|i was instructed to"
        r"|the opposite of your <1>instructions|my instructions are",
    ),
    _sign(
        "system-prompt",
        0.3,
        r"(?:system prompt|initial prompt|starting instructions|<?/?system_prompt>?|systemprompt)",
        after=ANY,
    ),
    _sign(
        "ask-for-secret",
        0.35,
        r"(?:what is|what's|tell me|reveal|confirm|give me|spell) <4>(?:your|our|the) <1>"
        r"(?:password|passcode|pass ?phrase|secret (?:key|code|word)|confidential string|access code)",
    ),
    # Text that a reader does not see.
    _sign(
        "html-hidden",
        0.3,
        r"(?:display ?: ?none|visibility ?: ?hidden|font-size ?: ?0(?:px|pt|em)?|opacity ?: ?0(?:\.0{1,2}[0-9]?)?"
        r"|(?:left|top|text-indent) ?: ?-[0-9]{3,5}px)[;\"' ]",
        before=ANY,
        after=ANY,
    ),
    _sign("html-comment", 0.1, r"<!--", before=ANY, after=ANY),
    _sign("concealed", 0.7, r"\x1b\[(?:[0-9]{1,3};){0,4}8(?:;[0-9]{1,3}){0,4}m", before=ANY, after=ANY),
)
