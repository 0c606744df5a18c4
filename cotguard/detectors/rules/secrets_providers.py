"""Secrets that say by themselves whose they are: API keys, tokens and webhooks with a provider's own prefix.

One row a format: provider, kind, pattern. The rule is named ``<provider>-<kind>``. A row belongs here when its
literal beginning is no beginning of an English word, so that prose is never held for it; formats without such a
beginning are found by what stands before them (:mod:`cotguard.detectors.rules.secrets_generic`).

Lengths are the shortest that the provider issues; upper bounds are left open, because providers lengthen their
tokens and because ``{36,}`` costs less to compile than ``{36,255}``. A placeholder in the provider's shape
(``ghp_xxxx...``) is not reported.

Sources: the providers' own documentation of their token formats, and the examples in open rule sets for secret
scanners as evidence of formats (gitleaks, MIT; noseyparker and kingfisher, Apache-2.0); patterns are our own.

Known limits: a token shortened below its format's length is left to the generic rules; prefixes are
case-sensitive, as the providers' are.
"""

from collections.abc import Iterable, Iterator

from cotguard.detectors.rule import Candidate, Found, Rule
from cotguard.detectors.rules.secrets_plausibility import is_masked

__all__ = ["RULES"]

_SCORE = 0.95

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F-]{27,}"
_HTTPS = r"(?:https?://)?"
_DISCORD = rf"{_HTTPS}(?:ptb\.|canary\.)?discord(?:app)?\.com"

# fmt: off
_API_KEYS: tuple[tuple[str, str, str], ...] = (
    ("1password", "secret-key", r"A3-[0-9A-Z]{6}-(?:[0-9A-Z]{11}|[0-9A-Z]{6}-[0-9A-Z]{5})(?:-[0-9A-Z]{5}){3}"),
    ("adafruit", "io-key", r"aio_[0-9A-Za-z]{28,}"),
    ("adobe", "client-secret", r"p8e-[0-9A-Za-z-]{32,}"),
    ("adyen", "api-key", r"AQE[0-9A-Za-z+/]{60,}={0,2}"),
    ("alchemy", "api-key", r"alcht_[0-9A-Za-z]{30,}"),
    ("alibaba", "access-key-id", r"LTAI[0-9A-Za-z]{12,}"),
    ("anthropic", "api-key", r"sk-ant-[a-z]{3,10}[0-9]{2}-[0-9A-Za-z_-]{80,}"),
    ("anyscale", "api-key", r"esecret_[0-9a-z]{26,}"),
    ("apify", "api-token", r"apify_api_[0-9A-Za-z]{36,}"),
    ("apollo", "graphos-key", r"service:[0-9A-Za-z._-]{3,}:[0-9A-Za-z_-]{22,}"),
    ("artifactory", "api-key", r"AKC[0-9A-Za-z]{64,}"),
    ("authress", "key", r"(?:sc|ext|scauth|authress)_[0-9a-z]{5,}\.[0-9a-z]{4,}\.acc[_-][0-9A-Za-z+/_=.-]{40,}"),
    ("aws", "access-key-id", r"(?:A3T[0-9A-Z]|AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16,}"),
    ("aws", "appsync-key", r"da2-[0-9a-z]{26,}"),
    ("aws", "bedrock-key", r"ABSK[0-9A-Za-z+/]{100,}={0,2}"),
    ("aws", "bedrock-short-key", r"bedrock-api-key-[0-9A-Za-z+/]{40,}={0,2}"),
    ("aws", "mws-key", rf"amzn\.mws\.{_UUID}"),
    ("braintree", "access-token", r"access_token\$(?:production|sandbox)\$[0-9a-z]{16,}\$[0-9a-f]{32,}"),
    ("brave", "search-key", r"BSA[0-9A-Za-z_-]{28,}"),
    ("brevo", "api-key", r"xkeysib-[0-9a-f]{64,}-[0-9A-Za-z]{16,}"),
    ("brevo", "smtp-key", r"xsmtpsib-[0-9a-f]{64,}-[0-9A-Za-z]{16,}"),
    ("browserbase", "api-key", r"bb_live_[0-9A-Za-z_-]{20,}"),
    ("buildkite", "agent-token", r"bkct_[0-9A-Za-z]{40,}"),
    ("cerebras", "api-key", r"csk-[0-9a-z]{48,}"),
    ("clickhouse", "cloud-key", r"4b1d[0-9A-Za-z]{38,}"),
    ("clickup", "personal-token", r"pk_[0-9]{7,9}_[0-9A-Z]{32,}"),
    ("cloudflare", "origin-ca-key", r"v1\.0-[0-9a-f]{24,}-[0-9a-f]{100,}"),
    ("convex", "deploy-key", r"(?:prod|dev|preview):[0-9a-z-]{3,}\|[0-9A-Za-z+/=]{40,}"),
    ("crates-io", "token", r"cio[0-9A-Za-z]{32,}"),
    ("datadog", "client-token", r"pub[0-9a-f]{32,}"),
    ("defined-networking", "api-key", r"dnkey-[0-9A-Za-z=_-]{26,}-[0-9A-Za-z=_-]{52,}"),
    ("dependency-track", "api-key", r"odt_[0-9A-Za-z]{32,}"),
    ("dfuse", "api-key", r"(?:web|server)_[0-9a-f]{32,}"),
    ("dynatrace", "token", r"dt0[a-z][0-9]{2}\.[0-9A-Z]{24,}\.[0-9A-Z]{64,}"),
    ("e2b", "api-key", r"e2b_[0-9a-f]{40,}"),
    ("easypost", "api-key", r"EZ[AT]K[0-9A-Za-z]{54,}"),
    ("elevenlabs", "api-key", r"sk_[0-9a-f]{48,}"),
    ("exoscale", "api-key", r"EXO[0-9a-f]{24,}"),
    ("figma", "token", r"fig[dour]_[0-9A-Za-z_-]{40,}"),
    ("firebase", "cloud-messaging-key", r"AAAA[0-9A-Za-z_-]{7}:APA91b[0-9A-Za-z_-]{100,}"),
    ("firecrawl", "api-key", r"fc-[0-9a-f]{32,}"),
    ("fireworks", "api-key", r"fw_[0-9A-Za-z]{22,}"),
    ("flagsmith", "server-key", r"ser\.[0-9A-Za-z]{20,}"),
    ("fleetbase", "api-key", r"flb_(?:live|test)_[0-9A-Za-z]{20,}"),
    ("flutterwave", "secret-key", r"FLWSECK(?:_TEST)?-[0-9a-zA-Z]{12,}(?:-X)?"),
    ("gocardless", "token", r"(?:live|sandbox)_[0-9A-Za-z_=-]{40,}"),
    ("google", "api-key", r"AIza[0-9A-Za-z_-]{35,}"),
    ("google", "oauth-client-secret", r"GOCSPX-[0-9A-Za-z_-]{28,}"),
    ("google", "recaptcha-key", r"6L[c-f][0-9A-Za-z_-]{5}AAAAA[0-9A-Za-z_-]{27,}"),
    ("grafana", "api-key", r"eyJrIjoi[0-9A-Za-z+/]{60,}={0,2}"),
    ("grafana", "cloud-token", r"glc_[0-9A-Za-z+/]{32,}={0,2}"),
    ("grafana", "service-account-token", r"glsa_[0-9A-Za-z]{32,}_[0-9A-Fa-f]{8}"),
    ("groq", "api-key", r"gsk_[0-9A-Za-z]{50,}"),
    ("harness", "api-key", r"[ps]at\.[0-9A-Za-z_-]{22,}\.[0-9A-Za-z]{24,}\.[0-9A-Za-z]{20,}"),
    ("helicone", "api-key", r"sk-helicone-[0-9a-z]{7}-[0-9a-z]{7}-[0-9a-z]{7}-[0-9a-z]{7}"),
    ("heroku", "api-key", r"HRKU-[0-9A-Za-z_-]{36,}"),
    ("honeycomb", "ingest-key", r"hc[abcdef]i[ck]_[0-9a-z]{58,}"),
    ("hubspot", "private-app-token", rf"pat-(?:na|eu|ap)[0-9]-{_UUID}"),
    ("infisical", "service-token", r"st\.[0-9a-f]{24,}\.[0-9a-f]{32,}\.[0-9a-f]{32,}"),
    ("infracost", "api-key", r"ico-[0-9A-Za-z]{32,}"),
    ("intra42", "client-secret", r"s-s4t2(?:ud|af)-[0-9a-f]{64,}"),
    ("ionic", "api-token", r"ion_[0-9A-Za-z]{42,}"),
    ("jina", "api-key", r"jina_[0-9A-Za-z]{60,}"),
    ("klaviyo", "private-key", r"pk_[0-9a-f]{34,}"),
    ("langfuse", "secret-key", rf"sk-lf-{_UUID}"),
    ("langsmith", "api-key", r"lsv2_(?:pt|sk)_[0-9a-f]{32,}_[0-9a-f]{10,}"),
    ("langsmith", "legacy-key", r"ls__[0-9a-f]{32,}"),
    ("launchdarkly", "sdk-key", rf"(?:sdk|mob|api)-{_UUID}"),
    ("linear", "api-key", r"lin_(?:api|oauth|wh)_[0-9A-Za-z]{32,}"),
    ("llamaindex", "cloud-key", r"llx-[0-9A-Za-z]{48,}"),
    ("lob", "api-key", r"(?:live|test)_(?:pub_)?[0-9a-f]{31,}"),
    ("logfire", "write-token", r"pylf_v[0-9]_[a-z]{2}_[0-9A-Za-z]{40,}"),
    ("mailersend", "token", r"mlsn\.[0-9a-f]{64,}"),
    ("mailgun", "api-key", r"(?:pub)?key-[0-9a-f]{32,}"),
    ("mandrill", "api-key", r"md-[0-9A-Za-z]{22,}"),
    ("mapbox", "secret-token", r"[spt]k\.eyJ[0-9A-Za-z_-]{30,}\.[0-9A-Za-z_-]{20,}"),
    ("mem0", "api-key", r"m0-[0-9A-Za-z]{40,}"),
    ("modal", "token", r"a[ks]-[0-9A-Za-z]{22,}"),
    ("mollie", "api-key", r"(?:live|test)_[0-9A-Za-z]{30,}"),
    ("neon", "api-key", r"napi_[0-9a-z]{60,}"),
    ("new-relic", "admin-key", r"NRRA-[0-9a-f]{42,}"),
    ("new-relic", "browser-key", r"NRJS-[0-9a-f]{19,}"),
    ("new-relic", "insert-key", r"NRI[IQ]-[0-9A-Za-z_-]{32,}"),
    ("new-relic", "pixie-key", rf"px-(?:api|dep)-{_UUID}"),
    ("new-relic", "user-key", r"NRA[AK]-[0-9A-Za-z]{27,}"),
    ("ngrok", "api-key", r"(?:cr|ak)_[0-9A-Za-z]{25,}"),
    ("nightfall", "api-key", r"NF-[0-9A-Za-z]{32,}"),
    ("nuget", "api-key", r"oy2[0-9a-z]{43,}"),
    ("nvidia", "api-key", r"nvapi-[0-9A-Za-z_-]{60,}"),
    ("octopus", "deploy-key", r"API-[0-9A-Z]{25,}"),
    ("openai", "api-key", r"sk-[0-9A-Za-z]{20,}"),
    ("openai", "project-key", r"sk-(?:proj|svcacct|admin|None)-[0-9A-Za-z_-]{20,}"),
    ("openrouter", "api-key", r"sk-or-v[0-9]-[0-9a-f]{64,}"),
    ("pagarme", "api-key", r"ak_(?:live|test)_[0-9A-Za-z]{30,}"),
    ("paystack", "secret-key", r"[sp]k_(?:live|test)_[0-9a-f]{40,}"),
    ("perplexity", "api-key", r"pplx-[0-9A-Za-z]{40,}"),
    ("pinecone", "api-key", r"pcsk_[0-9A-Za-z_]{40,}"),
    ("plaid", "access-token", rf"access-(?:sandbox|development|production)-{_UUID}"),
    ("polar", "access-token", r"polar_(?:oat|pat|at_[uo])_[0-9A-Za-z]{32,}"),
    ("posthog", "api-key", r"ph[asxr]_[0-9A-Za-z_]{42,}"),
    ("postman", "api-key", r"PMAK-[0-9A-Za-z]{24,}-[0-9A-Za-z]{34,}"),
    ("prefect", "api-key", r"pn[ub]_[0-9A-Za-z]{36,}"),
    ("pubnub", "key", rf"(?:pub|sub|sec)-c-(?:{_UUID}|[0-9A-Za-z]{{48,}})"),
    ("pushbullet", "api-key", r"o\.[0-9A-Za-z]{32,}"),
    ("ragie", "api-key", r"tnt_[0-9A-Za-z_]{40,}"),
    ("razorpay", "key-id", r"rzp_(?:live|test)_[0-9A-Za-z]{14,}"),
    ("readme", "api-key", r"rdme_[0-9a-z]{70,}"),
    ("render", "api-key", r"rnd_[0-9A-Za-z]{28,}"),
    ("replicate", "api-key", r"r8_[0-9A-Za-z_-]{37,}"),
    ("resend", "api-key", r"re_[0-9A-Za-z]{8}_[0-9A-Za-z]{24,}"),
    ("runpod", "api-key", r"rpa_[0-9A-Z]{40,}"),
    ("scrapfly", "api-key", r"scp-(?:live|test)-[0-9a-z]{32,}"),
    ("segment", "public-api-token", r"sgp_[0-9A-Za-z]{64,}"),
    ("sendgrid", "api-key", r"SG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}"),
    ("shippo", "api-token", r"shippo_(?:live|test)_[0-9A-Fa-f]{40,}"),
    ("square", "sandbox-token", r"sandbox-sq0[a-z]{3}-[0-9A-Za-z_-]{22,}"),
    ("stackhawk", "api-key", r"hawk\.[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}"),
    ("statsig", "secret-key", r"(?:secret|console)-[0-9A-Za-z]{40,}"),
    ("stripe", "key", r"(?:sk|rk|pk)_(?:live|test|prod)_[0-9A-Za-z]{16,}"),
    ("stripe", "webhook-secret", r"whsec_[0-9A-Za-z+/]{32,}={0,2}"),
    ("stytch", "secret", r"secret-(?:live|test)-[0-9A-Za-z_=-]{36,}"),
    ("supabase", "secret-key", r"sb_secret_[0-9A-Za-z_-]{31,}"),
    ("tavily", "api-key", r"tvly-(?:dev-|prod-)?[0-9A-Za-z]{32,}"),
    ("telnyx", "api-key", r"KEY[0-9A-F]{32,}_[0-9A-Za-z]{22,}"),
    ("thunderstore", "api-token", r"tss_[0-9A-Za-z]{36,}"),
    ("tickettailor", "api-key", r"sk_[0-9]{4}_[0-9]{6}_[0-9a-f]{32,}"),
    ("tigris", "secret-key", r"tsec_[0-9A-Za-z_+-]{40,}"),
    ("tinybird", "auth-token", r"p\.eyJ[0-9A-Za-z_-]{60,}\.[0-9A-Za-z_-]{40,}"),
    ("together", "api-key", r"tgp_v1_[0-9A-Za-z_-]{40,}"),
    ("trigger-dev", "secret-key", r"tr_(?:dev|prod|stg|pat)_[0-9A-Za-z]{20,}"),
    ("twilio", "key-sid", r"(?:SK|AC)[0-9a-f]{32,}"),
    ("twitch", "stream-key", r"live_[0-9]{8,12}_[0-9A-Za-z]{24,}"),
    ("ubidots", "token", r"BBFF-[0-9A-Za-z]{30,}"),
    ("unkey", "root-key", r"unkey_[0-9A-Za-z]{20,}"),
    ("upstage", "api-key", r"up_[0-9A-Za-z]{29,}"),
    ("vercel", "ai-gateway-key", r"vck_[0-9A-Za-z]{50,}"),
    ("voiceflow", "api-key", r"VF\.(?:DM\.|WS\.)?[0-9a-fA-F]{24,}\.[0-9A-Za-z]{16,}"),
    ("volcengine", "access-key", r"AKLT[0-9A-Za-z]{40,}"),
    ("voyage", "api-key", r"pa-[0-9A-Za-z_-]{43,}"),
    ("wakatime", "api-key", rf"waka_(?:sec_|tok_)?{_UUID}"),
    ("weights-and-biases", "api-key", r"wandb_v1_[0-9A-Za-z_]{60,}"),
    ("xai", "api-key", r"xai-[0-9A-Za-z_]{70,}"),
    ("yandex", "api-key", r"AQVN[0-9A-Za-z_-]{35,}"),
    ("yandex", "static-key", r"YC[0-9A-Za-z_-]{38,}"),
    ("zuplo", "api-key", r"zpka_[0-9a-z]{32,}_[0-9a-f]{8}"),
)

_ACCESS_TOKENS: tuple[tuple[str, str, str], ...] = (
    ("1password", "service-token", r"ops_eyJ[0-9A-Za-z+/_-]{200,}={0,3}"),
    ("airtable", "pat", r"pat[0-9A-Za-z]{14,}\.[0-9a-f]{62,}"),
    ("artifactory", "reference-token", r"cmVmd[0-9A-Za-z]{59,}"),
    ("asana", "pat", r"[012]/[0-9]{16,}(?:/[0-9]{16,})?:[0-9a-f]{32,}"),
    ("atlassian", "api-token", r"ATATT3[0-9A-Za-z_=-]{80,}"),
    ("atlassian", "access-token", r"ATCTT3[0-9A-Za-z_=-]{80,}"),
    ("bitbucket", "app-password", r"ATBB[0-9A-Za-z]{32,}"),
    ("buildkite", "api-token", r"bkua_[0-9a-z]{40,}"),
    ("circleci", "pat", r"CCI(?:PAT|PRJ)_[0-9A-Za-z]{20,}_[0-9a-f]{40,}"),
    ("clojars", "token", r"CLOJARS_[0-9a-z]{60,}"),
    ("cloudflare", "account-token", r"cf(?:at|ut|k)_[0-9A-Za-z]{40,}"),
    ("contentful", "pat", r"CFPAT-[0-9A-Za-z_-]{43,}"),
    ("databricks", "token", r"dapi[0-9a-f]{32,}(?:-[0-9]{1,2})?"),
    ("digitalocean", "token", r"do[opr]_v1_[0-9a-f]{64,}"),
    ("deno", "deploy-token", r"dd[opw]_[0-9A-Za-z]{36,}"),
    ("discord", "bot-token", r"(?:M[DTjz]|N[DTjz]|O[DT])[0-9A-Za-z_-]{21,}\.[0-9A-Za-z_-]{6}\.[0-9A-Za-z_-]{27,}"),
    ("docker", "access-token", r"dckr_(?:pat|oat)_[0-9A-Za-z_-]{27,}"),
    ("doppler", "token", r"dp\.(?:ct|pt|st|sa|scim|audit)\.(?:[0-9a-z_-]{2,}\.)?[0-9A-Za-z]{40,}"),
    ("dropbox", "access-token", r"sl\.[0-9A-Za-z_-]{100,}"),
    ("duffel", "api-token", r"duffel_(?:test|live)_[0-9A-Za-z_=-]{43,}"),
    ("facebook", "access-token", r"EAA[0-9A-Za-z]{60,}"),
    ("facebook", "app-token", r"[0-9]{15,16}\|[0-9A-Za-z_-]{27,}"),
    ("flexport", "api-token", r"shltm_[0-9A-Za-z_-]{40,}"),
    ("flyio", "access-token", r"f(?:o1_[0-9A-Za-z_-]{43,}|m[12][ar]?_[0-9A-Za-z+/]{100,}={0,3})"),
    ("frameio", "api-token", r"fio-u-[0-9A-Za-z_=-]{64,}"),
    ("github", "fine-grained-pat", r"github_pat_[0-9A-Za-z_]{82,}"),
    ("github", "token", r"gh[pousr]_[0-9A-Za-z_]{36,}"),
    ("gitlab", "agent-token", r"glagent-[0-9A-Za-z_-]{50,}"),
    ("gitlab", "ci-job-token", r"glcbt-(?:[0-9A-Za-z]{1,5}_)?[0-9A-Za-z_-]{20,}"),
    ("gitlab", "deploy-token", r"gldt-[0-9A-Za-z_-]{20,}"),
    ("gitlab", "feature-flag-token", r"glffct-[0-9A-Za-z_-]{20,}"),
    ("gitlab", "feed-token", r"glft-[0-9A-Za-z_-]{20,}"),
    ("gitlab", "mail-token", r"glimt-[0-9A-Za-z_-]{25,}"),
    ("gitlab", "oauth-secret", r"gloas-[0-9A-Za-z_-]{64,}"),
    ("gitlab", "pat", r"glpat-[0-9A-Za-z_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,})?"),
    ("gitlab", "runner-registration", r"GR1348941[0-9A-Za-z_-]{20,}"),
    ("gitlab", "runner-token", r"glrt-[0-9A-Za-z_-]{20,}(?:\.[0-9a-z]{2}\.?[0-9a-z]{7,})?"),
    ("gitlab", "scim-token", r"glsoat-[0-9A-Za-z_-]{20,}"),
    ("gitlab", "trigger-token", r"glptt-[0-9a-f]{40,}"),
    ("google", "oauth-token", r"ya29\.[0-9A-Za-z_-]{20,}"),
    ("google", "refresh-token", r"1//0[0-9A-Za-z_-]{30,}"),
    ("huggingface", "org-token", r"api_org_[A-Za-z]{34,}"),
    ("huggingface", "token", r"hf_[0-9A-Za-z]{34,}"),
    ("instagram", "access-token", r"IG(?:QV|QW|AA)[0-9A-Za-z_-]{60,}"),
    ("linkedin", "access-token", r"AQ[UVWX][0-9A-Za-z_-]{150,}"),
    ("mongodb", "service-account", r"mdb_sa_sk_[0-9A-Za-z_-]{40,}"),
    ("netlify", "pat", r"nf[pcoub]_[0-9A-Za-z]{36,}"),
    ("notion", "integration-token", r"ntn_[0-9A-Za-z]{43,}"),
    ("notion", "legacy-token", r"secret_[0-9A-Za-z]{43,}"),
    ("npm", "access-token", r"npm_[0-9A-Za-z]{36,}"),
    ("openshift", "user-token", r"sha256~[0-9A-Za-z_-]{43,}"),
    ("pagerduty", "api-token", r"[uy]\+[0-9A-Za-z_-]{18,}"),
    ("planetscale", "token", r"pscale_(?:tkn|oauth|pw)_[0-9A-Za-z=._-]{32,}"),
    ("pulumi", "access-token", r"pul-[0-9a-f]{40,}"),
    ("pypi", "upload-token", r"pypi-AgE[0-9A-Za-z_-]{50,}"),
    ("rubygems", "api-key", r"rubygems_[0-9a-f]{42,}"),
    ("salesforce", "access-token", r"00[0-9A-Za-z]{13,}![0-9A-Za-z._]{90,}"),
    ("scalingo", "api-token", r"tk-us-[0-9A-Za-z_-]{48,}"),
    ("sentry", "org-token", r"sntrys_eyJ[0-9A-Za-z+/]{40,}={0,2}_[0-9A-Za-z+/]{43,}"),
    ("sentry", "user-token", r"sntry[ua]_[0-9a-f]{64,}"),
    ("settlemint", "access-token", r"sm_[aps]at_[0-9A-Za-z]{16,}"),
    ("shopify", "access-token", r"shp(?:at|ca|pa|ss|ua|tka)_[0-9A-Fa-f]{30,}"),
    ("slack", "app-token", r"xapp-[0-9]{1,3}-[0-9A-Z]{8,}-[0-9]{8,}-[0-9A-Za-z]{10,}"),
    ("slack", "config-token", r"xoxe(?:\.xox[bp])?-[0-9]-[0-9A-Za-z]{100,}"),
    ("slack", "legacy-token", r"xox[ar]-(?:[0-9]-)?[0-9A-Za-z]{8,}(?:-[0-9A-Za-z]{6,}){0,4}"),
    ("slack", "session-token", r"xox[cd]-[0-9A-Za-z%+/=-]{40,}"),
    ("slack", "token", r"xox[bpeos](?:-[0-9]{8,14}){1,3}-[0-9A-Za-z-]{18,}"),
    ("snowflake", "pat", r"ver:1-hint:[0-9]{6,}-ETMsDgAAA[0-9A-Za-z+/=_-]{60,}"),
    ("sonarqube", "token", r"sq[pua]_[0-9a-f]{40,}"),
    ("sourcegraph", "cody-token", r"slk_[0-9a-f]{64,}"),
    ("sourcegraph", "token", r"sgp_(?:(?:[0-9a-fA-F]{16,}|local)_)?[0-9a-fA-F]{40,}"),
    ("square", "access-token", r"(?:EAAA[0-9A-Za-z_-]{56,}|sq0(?:atp|csp|idp|idb)-[0-9A-Za-z_-]{22,})"),
    ("supabase", "access-token", r"sbp_(?:v0_)?[0-9a-f]{40,}"),
    ("tailscale", "key", r"tskey-[a-z]{3,12}-[0-9A-Za-z]{8,}(?:CNTRL)?-[0-9A-Za-z]{16,}"),
    ("teamcity", "token", r"eyJ0eXAiOiAiVENWMiJ9\.[0-9A-Za-z_-]{36,}\.[0-9A-Za-z_-]{48,}"),
    ("teamwork", "token", r"tkn\.v1_[0-9A-Za-z]{71,}=?"),
    ("telegram", "bot-token", r"[0-9]{8,10}:AA[0-9A-Za-z_-]{32,}"),
    ("twitter", "bearer-token", r"AAAAAAAAAAAAAAAAAAAAA[0-9A-Za-z%+/=]{60,}"),
    ("typeform", "token", r"tfp_[0-9A-Za-z_.=-]{40,}"),
    ("vault", "batch-token", r"hvb\.[0-9A-Za-z_-]{24,}"),
    ("vault", "recovery-token", r"hvr\.[0-9A-Za-z_-]{24,}"),
    ("vault", "service-token", r"hvs\.[0-9A-Za-z_-]{24,}"),
    ("vercel", "token", r"vc[pia]_[0-9A-Za-z]{40,}"),
    ("yandex", "iam-token", r"t1\.[0-9A-Za-z_-]{10,}={0,2}\.[0-9A-Za-z_-]{86,}={0,2}"),
    ("yandex", "oauth-token", r"y[0-3]_[0-9A-Za-z_-]{50,}"),
    ("zoho", "oauth-token", r"1000\.[0-9a-f]{32,}\.[0-9a-f]{32,}"),
)

_PASSWORDS: tuple[tuple[str, str, str], ...] = (
    ("crypt", "argon2", r"\$argon2(?:id|i|d)\$v=[0-9]{1,3}\$[0-9a-z=,]{5,}\$[0-9A-Za-z+/]{8,}\$[0-9A-Za-z+/]{16,}"),
    ("crypt", "bcrypt", r"\$2[abxy]\$[0-9]{2}\$[./0-9A-Za-z]{53,}"),
    ("crypt", "md5", r"\$(?:1|apr1)\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{22,}"),
    ("crypt", "sha2", r"\$[56]\$(?:rounds=[0-9]{1,9}\$)?[./0-9A-Za-z]{1,16}\$[./0-9A-Za-z]{43,}"),
    ("crypt", "yescrypt", r"\$y\$[./0-9A-Za-z]{1,8}\$[./0-9A-Za-z]{1,}\$[./0-9A-Za-z]{43,}"),
    ("django", "password-hash", r"pbkdf2_sha(?:1|256)\$[0-9]{4,8}\$[0-9A-Za-z]{8,}\$[0-9A-Za-z+/]{27,}={0,2}"),
    ("kerberos", "asrep-hash", r"\$krb5(?:asrep|tgs|pa)\$(?:17|18|23)\$[0-9A-Za-z.@*$:/_-]{40,}"),
)

_PRIVATE_KEYS: tuple[tuple[str, str, str], ...] = (
    ("age", "identity", r"AGE-SECRET-KEY-1[0-9A-Z]{58,}"),
    ("bip32", "extended-private-key", r"[xyzt]prv[1-9A-HJ-NP-Za-km-z]{100,}"),
    ("nostr", "private-key", r"nsec1[02-9ac-hj-np-z]{58,}"),
    ("pem", "base64-block", r"LS0tLS1CRUdJTiB(?:SU0Eg|FQyBQ|QUklW|PUEVO|EU0Eg|FTkNS|QR1AgUFJJ)[0-9A-Za-z+/]{24,}=?=?"),
    ("stellar", "secret-seed", r"S[A-D][2-7A-Z]{54,}"),
)

_WEBHOOKS: tuple[tuple[str, str, str], ...] = (
    ("airtable", "webhook", rf"{_HTTPS}hooks\.airtable\.com/workflows/v1/genericWebhook/[0-9A-Za-z/]{{30,}}"),
    ("azure", "logic-app-webhook", r"https://[0-9a-z.-]{3,}\.logic\.azure\.com(?::443)?/[0-9A-Za-z/._?=&%-]{40,}"),
    ("dingtalk", "webhook", rf"{_HTTPS}oapi\.dingtalk\.com/robot/send\?access_token=[0-9a-f]{{40,}}"),
    ("discord", "webhook", rf"{_DISCORD}/api/(?:v10/)?webhooks/[0-9]{{17,}}/[0-9A-Za-z_-]{{36,}}"),
    ("feishu", "webhook", rf"{_HTTPS}open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/{_UUID}"),
    ("google", "chat-webhook", rf"{_HTTPS}chat\.googleapis\.com/v1/spaces/[0-9A-Za-z_/?=&%-]{{80,}}"),
    ("ifttt", "webhook", rf"{_HTTPS}maker\.ifttt\.com/(?:trigger|use)/[0-9A-Za-z_/-]{{20,}}"),
    ("make", "webhook", rf"{_HTTPS}hook\.(?:[a-z]{{2}}[0-9]\.)?(?:make|integromat)\.com/[0-9a-z]{{28,}}"),
    ("microsoft-teams", "webhook", r"https://(?:outlook\.office(?:365)?|[0-9a-z-]{1,}\.webhook\.office)\.com/webhook(?:b2)?/[0-9A-Za-z@/_-]{100,}"),
    ("pipedream", "webhook", rf"{_HTTPS}eo[0-9a-z]{{10,}}\.m\.pipedream\.net"),
    ("slack", "webhook", rf"{_HTTPS}hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/[0-9A-Za-z/_+-]{{30,}}"),
    ("telegram", "bot-url", rf"{_HTTPS}api\.telegram\.org/(?:file/)?bot[0-9]{{8,10}}:[0-9A-Za-z_-]{{35,}}"),
    ("tines", "webhook", r"https://[0-9a-z-]{1,}\.tines\.com/webhook/[0-9a-z]{32,}/[0-9a-z]{32,}"),
    ("webex", "webhook", rf"{_HTTPS}webexapis\.com/v1/webhooks/incoming/[0-9A-Za-z]{{60,}}"),
    ("wecom", "webhook", rf"{_HTTPS}qyapi\.weixin\.qq\.com/cgi-bin/webhook/send\?key={_UUID}"),
    ("zapier", "webhook", rf"{_HTTPS}hooks\.zapier\.com/hooks/catch/[0-9]{{5,10}}/[0-9A-Za-z]{{6,}}"),
)

_OTHER: tuple[tuple[str, str, str], ...] = (
    ("ansible", "vault", r"\$ANSIBLE_VAULT;1\.[12];AES256(?:;[0-9A-Za-z_-]+)?(?:[\x09-\x20]{1,4}[0-9a-f]{16,})+"),
    ("rfc8959", "secret-token", r"secret-token:[0-9A-Za-z%._~!$&*+=:@/-]{8,}"),
)

_JWT = (
    # Base64url of '{"', '{ "' and '{' with a line break: the beginning of every JOSE header (RFC 7515, RFC 7516).
    r"(?:eyJ|eyAi|ewog|ew0K)[0-9A-Za-z_-]{10,}"
    r"(?:(?:\.[0-9A-Za-z_-]{2,}){2}"  # JWS
    r"|\.[0-9A-Za-z_-]{2,}(?:\.[0-9A-Za-z_-]{2,}){3}|\.(?:\.[0-9A-Za-z_-]{2,}){3}"  # JWE
    r"|\.eyJ[0-9A-Za-z_-]{10,}\.?)"  # unsecured, or cut before its signature
)
# fmt: on


def _unmasked(candidate: Candidate, rule_entity: str) -> Iterator[Found]:
    if not is_masked(candidate.text):
        yield Found(0, len(candidate.text), rule_entity, _SCORE)


def _rules(entity: str, rows: Iterable[tuple[str, str, str]]) -> Iterator[Rule]:
    for provider, kind, pattern in rows:
        yield Rule(
            name=f"{provider}-{kind}",
            entity=entity,
            value=pattern,
            score=_SCORE,
            check=lambda candidate: _unmasked(candidate, entity),
            provider=provider,
        )


RULES: tuple[Rule, ...] = (
    *_rules("SECRET_API_KEY", _API_KEYS),
    *_rules("SECRET_ACCESS_TOKEN", (*_ACCESS_TOKENS, ("jwt", "token", _JWT))),
    *_rules("SECRET_PASSWORD", _PASSWORDS),
    *_rules("SECRET_PRIVATE_KEY", _PRIVATE_KEYS),
    *_rules("SECRET_WEBHOOK", _WEBHOOKS),
    *_rules("SECRET", _OTHER),
)
