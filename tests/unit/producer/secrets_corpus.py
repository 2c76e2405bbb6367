"""Places where secrets are, by kind, and what only looks like one: what the redaction is measured by."""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

S = "hunter2"
LONG = "Zx9Kq2Lw8Vt4Rn6Yb1Mc3Pd5"
HEX = "9f86d081884c7d659a2feaa0c55ad015"


class Login(NamedTuple):
    """A named tuple with a secret."""

    user: str
    password: str


def _made(prefix: str, length: int, letters: str = "aB3dE5fG7hJ9kL1mN") -> str:
    """Return a token with *prefix*, made up here, so that nobody takes it for a real one."""
    return prefix + (letters * 10)[:length]


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _jwt() -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": "4711", "name": "Mei", "iat": 1516239022})
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join((*coded, "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"))


JWT = _jwt()
_LINES = "\n".join(["MIIEpAIBAAKCAQEA7bq3Zx9Kq2Lw8Vt4Rn6Yb1Mc3Pd5Qe7Sf9Ug"] * 3)
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{_LINES}\n-----END RSA PRIVATE KEY-----"
OPENSSH = PEM.replace("RSA", "OPENSSH")


def _words(text: str) -> list[str]:
    return text.split()


KEYS = _words(
    """
    password passwd pwd passphrase passcode secret token bearer cookie auth authorization credentials
    credential jwt sid otp totp dsn pem sas signature csrf xsrf csrf_token xsrfToken csrfmiddlewaretoken
    ssh_key sshKey client_assertion private_key_id private_key privateKey PRIVATE_KEY dbPassword2
    db_password DB_PASSWORD X-Api-Key x-api-key apiKey api_key APIKEY api.key AWS_SECRET_ACCESS_KEY
    aws_access_key_id stripeSecretKey STRIPE_SECRET set-cookie Set-Cookie session_id sessionId PHPSESSID
    JSESSIONID connect.sid connection_string ConnectionString refresh_token refreshToken id_token
    accessToken access_key accessKey service_account_json serviceAccountKey proxy-authorization
    Proxy_Authorization clientSecret client_secret webhook_secret signingKey encryption_key
    ENCRYPTION-KEY masterKey user_password passwords api_keys secrets oldPassword newPassword1
    confirm_password smtp_pass DB_PASS redisPass pass sentryDsn SENTRY_DSN github_token SLACK_BOT_TOKEN
    X-Amz-Security-Token X-Vault-Token x-auth-token X-CSRF-Token http_auth authHeader auth_key sas_token
    sharedAccessSignature storage_key account_key AccountKey connStr code_verifier mfa_code
    verification_code recovery_codes seed_phrase license_key session_key hmac_key tls_key_pem otp_code
    SASToken
    """
)

LOOK_ALIKES = [
    "p\u0430ssword",  # Cyrillic a
    "\u0440\u0430\u0455\u0455word",
    "\u0405\u0435\u0441ret",
    "tok\u0435n",
    "t\u03bfken",  # Greek omicron
    "\u03a1\u0391SSW\u039fRD",
    "\u0410PI_\u041a\u0415Y",
    "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44",
    "\U0001d429\U0001d41a\U0001d42c\U0001d42c\U0001d430\U0001d428\U0001d42b\U0001d41d",
    "pass\u200bword",
    "se\u00adcret",
    "s\u200bid",
    "p\u00e1ssw\u00f6rd",
    "passw0rd",
    "p@ssword",
    "api\u2010key",
    "ap\u0131_key",
    "\u0441srf",
]

_TOKENS = [
    _made("AKIA", 16, "Q3RT5YUP7"),
    _made("ASIA", 16, "Z3XC5VBN7"),
    _made("ghp_", 36),
    _made("gho_", 36),
    _made("ghs_", 36),
    _made("ghr_", 36),
    _made("github_pat_", 60),
    _made("glpat-", 20),
    _made("xoxb-123456789012-", 24),
    _made("xoxp-123456789012-", 24),
    _made("xoxa-2-", 24),
    _made("AIza", 35),
    _made("ya29.", 60),
    _made("sk-", 48),
    _made("sk-proj-", 48),
    _made("sk-ant-api03-", 48),
    _made("sk_live_", 24),
    _made("rk_live_", 24),
    _made("sk_test_", 24),
    _made("npm_", 36),
    _made("pypi-AgEIcHlwaS5vcmc", 60),
    f"{_made('SG.', 22)}.{_made('', 43)}",
    _made("hf_", 34),
    _made("dop_v1_", 64, "0123456789abcdef"),
    _made("shpat_", 32, "0123456789abcdef"),
    _made("GOCSPX-", 28),
    _made("dckr_pat_", 27),
    _made("hvs.", 60),
    _made("whsec_", 32),
    JWT,
]

# Each text, and the part of it that is to go.
_TEXTS: list[tuple[str, str]] = [
    *((token, token) for token in _TOKENS),
    *((f"cloning with {token} failed: 403", token) for token in _TOKENS[::3]),
    (f"Authorization: Bearer {LONG}", LONG),
    (f"GET /v1/me failed with headers Authorization: Bearer {LONG}, Accept: */*", LONG),
    (f"curl -H 'Authorization: Bearer {LONG}' https://api.example.com/v1", LONG),
    (f"Bearer {LONG}", LONG),
    (f"bearer {S}", S),
    (f"sent Bearer {JWT} to the gateway", JWT),
    (f"Authorization: Basic {_basic('mei:' + S)}", _basic("mei:" + S)),
    (f"Basic {_basic('mei:' + S)}", _basic("mei:" + S)),
    (f"using basic {_basic('mei:' + S)} for the proxy", _basic("mei:" + S)),
    (f"Proxy-Authorization: Basic {_basic('mei:' + S)}", _basic("mei:" + S)),
    (f"postgres://mei:{S}@db.example.com:5432/app", S),
    (f"could not connect to postgresql+asyncpg://mei:{S}@10.0.0.1/app: timeout", S),
    (f"redis://:{S}@cache:6379/0", S),
    (f"amqp://guest:{S}@rabbit:5672//", S),
    (f"mongodb+srv://mei:{S}@cluster0.example.net/?retryWrites=true", S),
    (f"https://mei:{S}@git.example.com/team/repo.git", S),
    (f"ftp://mei:{LONG}@ftp.example.com/in and more", LONG),
    ("mysql://root:p@ss:w0rd!@localhost/db", "p@ss:w0rd!"),
    (f"https://x-access-token:{_made('ghs_', 36)}@github.com/a/b", _made("ghs_", 36)),
    (PEM, PEM),
    (f"key:\n{OPENSSH}\nrest", OPENSSH),
    (PEM.replace("RSA ", ""), PEM.replace("RSA ", "")),
    (f"before {PEM.replace('RSA', 'EC')} after", PEM.replace("RSA", "EC")),
    (
        PEM.replace("RSA", "ENCRYPTED").replace("\n", "\\n"),
        PEM.replace("RSA", "ENCRYPTED").replace("\n", "\\n"),
    ),
    (f"password={S}", S),
    (f"user=mei password={S} host=db", S),
    (f"host=db;User Id=mei;Password={S};Port=5432", S),
    (f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={LONG}==;EndpointSuffix=x", f"{LONG}=="),
    (f"Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={LONG}=", f"{LONG}="),
    (f'{{"user": "mei", "password": "{S}"}}', S),
    (f'{{"user":"mei","apiKey":"{LONG}","n":1}}', LONG),
    (f"{{'user': 'mei', 'client_secret': '{S}'}}", S),
    (f'{{\\"user\\": \\"mei\\", \\"password\\": \\"{S}\\"}}', S),
    ('{"password": "with \\"quotes\\" in it", "n": 1}', 'with \\"quotes\\" in it'),
    (f"mysqldump --user mei --password {S} app", S),
    (f"mysqldump --user=mei --password={S} app", S),
    (f"deploy --api-key {LONG} --verbose", LONG),
    (f"deploy --token '{S}' --region eu", S),
    (f"https://api.example.com/v1?token={LONG}&page=2", LONG),
    (f"https://api.example.com/v1?page=2&access_token={S}", S),
    (f"https://api.example.com/v1?api_key={S}&q=a", S),
    (f"https://s.blob.core.windows.net/c/f?sv=2022&se=2026&sig={LONG}%3D&sp=r", f"{LONG}%3D"),
    (f"https://b.s3.amazonaws.com/f?X-Amz-Date=20260101&X-Amz-Signature={HEX}", HEX),
    (f"https://hooks.slack.com/services/T0AAAA/B0BBBB/{LONG}", f"T0AAAA/B0BBBB/{LONG}"),
    (f"X-Api-Key: {LONG}\nAccept: */*", LONG),
    (f"> Cookie: sessionid={LONG}; csrftoken={HEX}\n> Accept: */*", f"sessionid={LONG}; csrftoken={HEX}"),
    (f"Set-Cookie: sid={LONG}; Path=/; HttpOnly\nServer: x", f"sid={LONG}; Path=/; HttpOnly"),
    (f"export DB_PASSWORD={S}\nexport DB_HOST=db", S),
    (f'AWS_SECRET_ACCESS_KEY="{LONG}" terraform apply', LONG),
    (f"docker run -e POSTGRES_PASSWORD={S} postgres:16", S),
    (f"password: {S}\nuser: mei", S),
    (f"db:\n  password: '{S}'\n  host: db", S),
    (f"Config(user='mei', password='{S}', host='db')", S),
    (f"Settings(api_key={LONG!r}, debug=True)", LONG),
    (f"login failed for mei, password: {S}", S),
    (f"api key: {LONG} was refused", LONG),
    (f"the password is {S}!", f"{S}!"),
    (f"<user>mei</user><password>{S}</password>", S),
    (f"headers: [('Accept', '*/*'), ('X-Api-Key', '{LONG}')]", LONG),
    (f'[{{"name": "Authorization", "value": "{LONG}"}}]', LONG),
    ("otp=482913 user=mei", "482913"),
    ("pin: 4711, door: 3", "4711"),
    (f"grant_type=client_credentials&client_id=a&client_secret={S}", S),
    (f"grant_type=refresh_token&refresh_token={LONG}", LONG),
    (f"client_assertion={JWT}&x=1", JWT),
    (f"password%3D{S}", S),
    (f"dsn=https://{HEX}@sentry.example.com/2", f"https://{HEX}@sentry.example.com/2"),
    (f"p\u0430ssword={S}", S),
    (f"headers['Authorization'] = 'Bearer {LONG}'", LONG),
    (f'os.environ["API_TOKEN"] = "{LONG}"', LONG),
    (f"password: str = '{S}'", S),
    (f"if password == '{S}':", S),
    (f"ALTER USER mei WITH PASSWORD '{LONG}'", LONG),
    (f"CREATE USER mei IDENTIFIED BY '{LONG}'", LONG),
    (f"curl -u mei:{S} https://api.example.com", S),
    (f"wrong password '{S}' for mei", S),
    (f"redis-cli -a {S} ping", S),
    (f"login with password {S} failed", S),
    (f"echo {S} | docker login --password-stdin", S),
    (f"https://discord.com/api/webhooks/123456789/{LONG}", LONG),
    (f"api.telegram.org/bot123456789:{_made('', 35)}/sendMessage", f"123456789:{_made('', 35)}"),
]

TRACEBACK = """ValueError: {}

Traceback (most recent call last):
  File "/app/job.py", line 12, in run
    client = connect(host, password=password)
  File "/app/db.py", line 40, in connect
    {}
ValueError: {}"""

_TRACEBACKS: list[tuple[str, str]] = [
    (TRACEBACK.format(said, line, said), secret)
    for said, line, secret in [
        (f"cannot reach postgres://mei:{S}@db/app", "raise ValueError(url)", S),
        (f"bad header Bearer {LONG}", "raise ValueError(header)", LONG),
        (f"password={S} is too short", "raise ValueError(text)", S),
        (f"{{'token': '{LONG}'}}", "raise ValueError(body)", LONG),
        (f"{_TOKENS[2]} was revoked", "raise ValueError(token)", _TOKENS[2]),
        (f"cannot sign with {JWT}", "raise ValueError(jwt)", JWT),
        (f"cannot read {PEM}", "raise ValueError(key)", PEM),
        ("cannot log in", f"session.login('mei', password='{S}')", S),
        ("cannot log in", f'API_KEY = "{LONG}"', LONG),
    ]
]

CONTAINERS: list[Any] = [
    *(
        {"headers": [{name: "Authorization", value: S}]}
        for name in ("name", "key", "field", "id", "label", "header")
        for value in ("value", "content")
    ),
    {"env": [{"Key": "DB_PASSWORD", "Value": S}]},
    {"env": [{"Name": "API_KEY", "Value": S}, {"Name": "HOST", "Value": "db"}]},
    {"fields": [{"field": "password", "value": 471112}, {"field": "user", "value": "mei"}]},
    {"header": "Cookie", "values": [S]},
    {"k": "secret", "v": S},
    {"keys": ["user", "password"], "values": ["mei", S]},
    {"names": ("user", "api_key"), "values": ("mei", S)},
    {"columns": ["user", "password"], "rows": [["mei", S], ["ann", S]]},
    {"columns": ["id", "token"], "data": [[1, S]]},
    {"headers": ["user", "secret"], "row": ["mei", S]},
    {"fields": ["a", "b", "clientSecret"], "values": [1, 2, S]},
    {"login": Login("mei", S)},
    {"logins": [Login("mei", S), (Login("ann", S),)]},
    {"nested": {frozenset({"password"}): S}},
    {"nested": {("db", ("user", "password")): S}},
    {"nested": {(frozenset({"api"}), ("key",)): S}},
    {"nested": {b"password": S}},
    {"argv": ["deploy", "--password", S, "--verbose"]},
    {"argv": ("mysql", "-u", "mei", "--api-key", S)},
    {"pair": ["Authorization", S]},
    {"pairs": [("X-Api-Key", S), ("Accept", "*/*")]},
    {"pairs": [(b"cookie", S.encode())]},
    {"deep": [{"a": ({"b": [{"clientSecret": S}]},)}]},
    {"credentials": {"user": "mei", "hash": S}},
    {"cookies": [S, S]},
    {"auth": ["mei", S]},
    {"body": f"password={S}".encode()},
    {"texts": [f"password={S}", {"a": (f"postgres://u:{S}@h/d",)}]},
]
"""Each holds `S`, or 471112."""

NUMBERS: list[dict[str, Any]] = [
    {"token": 123456789012345678},
    {"accessToken": 98765432109876},
    {"csrf_token": 12345678901},
    {"tokens": [1, {"token": 123456789012}]},
    {"password": 123456},
    {"pin": 4711},
    {"pin_code": "0815"},
    {"otp": 482913},
    {"secret": 1.5},
]

SECRETS: dict[str, list[tuple[Any, str]]] = {
    "keys": [({key: S}, S) for key in KEYS],
    "look-alikes": [({key: S}, S) for key in LOOK_ALIKES],
    "texts": [({"text": text}, secret) for text, secret in _TEXTS],
    "tracebacks": [({"error": text}, secret) for text, secret in _TRACEBACKS],
    "containers": [(value, "471112" if "471112" in repr(value) else S) for value in CONTAINERS],
}
"""By kind: what holds a secret, and the secret."""

MISSED = [
    f"redis-cli -a {S} ping",  # an option of one letter
    f"login with password {S} failed",  # nothing sets it: a sentence
    f"echo {S} | docker login --password-stdin",  # nothing names it
]
"""Texts whose secret is known not to be found, and why."""

HARMLESS_KEYS = _words(
    """
    secretary secretariat secretaries undersecretary executive_secretary tokenized tokenizer
    tokenization tokenizerName token_count tokenCount tokens_per_second token_limit token_type tokenType
    token_url token_uri token_endpoint monkey keyboard keyboard_layout keyword keywords keynote
    keystroke turkey hockey donkey jockey whiskey author authored authors authority authoring authentic
    authenticated authentication_method authorized authorized_by passenger passage passenger_count
    compass bypass passive passport_country first_pass boarding_pass pass_rate pinned pinning spinner
    shipping shopping opinion pineapple pinterest side sidebar inside president sidecar residence
    footpath hotpatch laptop desktop option adoption sassy sasquatch tempo temperature pemmican dsname
    headsup password_policy passwordPolicy password_length password_min_length password_changed_at
    password_expires_at secret_name secretName secret_version secret_arn secret_path cookie_policy
    cookie_consent cookie_name cookieDomain cookiecutter cookie_banner auth_type authType auth_method
    auth_provider auth_url auth_uri auth_domain oauth_provider credential_type credentials_path
    signature_algorithm signatureVersion function_signature method_signature session session_count
    sessions obsession_id key keys primary_key foreign_key public_key cache_key sort_key partition_key
    idempotency_key object_key key_count name id label field header value user username email host port
    url status result error message count total amount currency invoice lines file path title
    description bearing csrf_enabled jwt_algorithm otp_enabled api_version api_url access_level
    accessed_at signal sign signed assign design certificate public_certificate sha256 checksum digest
    etag commit revision trace_id span_id request_id run_id postal_code country_code zip_code error_code
    code discount_code product_code mapping apiculture capital
    """
)

HARMLESS_TEXTS = [
    "the secretary was tokenized by a monkey at the keyboard",
    "Bearer authentication failed",
    "the bearer of this letter is to be paid",
    "Basic authentication is required",
    "Basic JavaScript knowledge, basic understanding of SQL",
    'WWW-Authenticate: Bearer realm="example", error="invalid_token"',
    "password is required",
    "Invalid password: too short, at least 12 characters",
    "missing required field: password",
    "password: required",
    "token: expired",
    "KeyError: 'password'",
    "TypeError: login() missing 1 required positional argument: 'password'",
    "SyntaxError: Unexpected token < in JSON at position 0",
    "unexpected token: comma",
    "client = connect(host, password=password)",
    "client = connect(host, api_key=settings.api_key)",
    "token = get_token(user)",
    "password = os.environ['DB_PASSWORD']",
    "self.password = password",
    "def login(user: str, password: str, *, token: str | None = None) -> Session:",
    "def login(user, password=None, token=None): ...",
    "raise ValueError(f'bad token={token!r}')",
    "password=***",
    "password=<hidden>",
    "password=${DB_PASSWORD}",
    "password: {{ db_password }}",
    "password=[redacted]",
    "postgres://db.example.com:5432/app",
    "postgres://mei@db.example.com/app",
    "postgres://mei:[redacted]@db.example.com/app",
    "postgres://mei:${PASSWORD}@db.example.com/app",
    "https://example.com:8443/@mei/posts",
    "http://localhost:8080/users/a@example.com",
    "mail mei@example.com about https://example.com/a?b=c&d=e",
    "ssh://git@github.com/team/repo.git",
    "git@github.com:team/repo.git",
    "npm_config_registry=https://registry.npmjs.org",
    "pypi-simple-index-mirror-server",
    "sk-learn-pipeline-component-name",
    "task-1234567890123456789 and desk-1234567890123456",
    "hf_hub_download_function_name_here",
    "ASIAPACIFICREGIONALOFFICES",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUF\n-----END CERTIFICATE-----",
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "0190a5f0-7b1c-7d3e-9f2a-3c4b5d6e7f80",
    "2026-01-02T03:04:05.678Z",
    "eyJ is how base64 of JSON begins",
    '{"max_tokens": 1024, "total_tokens": 512, "model": "m"}',
    "max_tokens=1024&temperature=0.5",
    "tokens: 512, cost: 0.01",
    '{"token_type": "bearer", "expires_in": 3600}',
    "use the --password option to set it",
    "headers = {'Authorization': f'Bearer {token}'}",
    'headers["Authorization"] = "Bearer " + token',
    "Please reset your password: https://example.com/reset",
    "docker run -u 1000:1000 app; option --token requires an argument",
    "author: Mei, keyboard: qwerty, monkey: yes",
    "key: value, name: n, id: 7",
    "cookie policy: accepted",
    "the pin is in the drawer; pinned: 3 messages",
    "GPIO pin: A4, pin: 13",
    "a design was signed: signature pending",
    "secrets are kept in the vault, see docs/secrets.md",
    "Retrying in 10 s: token bucket is empty",
    'Traceback (most recent call last):\n  File "/app/job.py", line 12, in run\n    token = auth.token()',
    "SELECT password_hash FROM users WHERE id = 7",
    "line 3: expected ':' but found '='",
    "ratio=0.5; count=3; path=/srv/data; user=mei",
    "<user>mei</user><title>Password policy</title>",
    "fields: ['password', 'email']",
    "https://example.com/reset-password?lang=en",
    "C:\\Users\\mei\\passwords.txt was not found",
]

HARMLESS_VALUES: list[Any] = [
    {"max_tokens": 1024, "usage": {"total_tokens": 1_000_000, "prompt_tokens": 12}},
    {"token": 5, "tokens": [1, 2, 3]},
    {"max_tokens": "1024"},
    {"pin": "A4", "led": 13},
    {"has_password": True, "is_secret": False, "requiresAuth": True, "use_token": False},
    {"password": None, "secret": None},
    {"name": "user", "value": "mei"},
    {"id": "title", "content": "Password"},
    {"key": "max_tokens", "value": 5},
    {"label": "Cookie policy", "value": "accepted"},
    {"columns": ["user", "age"], "rows": [["mei", 41]]},
    {"keys": ["a", "b"], "values": [1, 2]},
    {"keys": ["password"], "values": []},
    {"argv": ["deploy", "--region", "eu", "--verbose"]},
    {"argv": ["deploy", "--password", "--verbose"]},
    {"point": [1, 2], "pair": ["user", "mei"]},
    {"": "kept", "a": {"b": [{"c": None}]}},
    {"bytes": b"\xff\x00abc", "set": "x"},
]

HARMLESS: list[Any] = [
    *({key: "kept"} for key in HARMLESS_KEYS),
    *({"text": text} for text in HARMLESS_TEXTS),
    *HARMLESS_VALUES,
]
