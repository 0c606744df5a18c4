"""Sentences and records around values, of our own making.

A slot ``{NAME}`` is a value of :data:`~models.corpus.values.VALUES`, ``{FIRST}`` and ``{LAST}`` parts of the name that
the same text has or had, and ``{kind}`` in lower case something of :data:`~models.corpus.values.NEGATIVES`.
"""

__all__ = ["CHAT", "CODE", "NEGATIVE", "POSTS", "RECALL", "RECORDS"]

RECALL = r"""
Right, the ticket was opened by {PERSON}, so I should speak to them by name.
Earlier in the thread {PERSON} wrote from {EMAIL_ADDRESS}.
Hmm, the number on file is {PHONE_NUMBER}, but I should not repeat it.
The form lists {PERSON}, born {DATE_OF_BIRTH}, living at {STREET_ADDRESS}.
So the person is {AGE} and has {MEDICAL_CONDITION}.
{FIRST} mentioned that the {MEDICAL_CONDITION} got worse over the winter.
I recall that {PERSON} moved from {LOCATION} to {LOCATION} last year.
The caller gave {GOVERNMENT_ID} as the identity number, which I need for the lookup.
Wait, no, it is {PHONE_NUMBER}, the other one was the old line.
The card they want to use is {CREDIT_CARD}; let me not echo that.
Their account, {BANK_ACCOUNT}, shows two payments.
The refund must go to {BANK_ACCOUNT} and not to the card ending in {BANK_ACCOUNT}.
According to the notes, {LAST} is allergic, and {FIRST} has asked twice about it.
The chart of {PERSON} ({MEDICAL_ID}) says {MEDICAL_CONDITION}.
The user signs as {USERNAME}, which is probably {PERSON}.
Let me think about what {FIRST} really needs here.
Mr. {LAST} would like this today, I think.
Dr. {LAST} has to sign first.
That would be {FIRST}'s decision, not mine.
So {FIRST} and {PERSON} both work for {ORGANIZATION}.
The policy holder is {PERSON}, customer {CUSTOMER_ID}.
Case {CUSTOMER_ID} concerns {PERSON} against {PERSON}.
The password they pasted was {PASSWORD}, so they should change it.
They told me the wifi password is {PASSWORD}.
I can see that the login is {USERNAME} with {PASSWORD}.
The system message holds a key, {KEY}, which must stay private.
The one-time code is {OTP}, valid for ten minutes.
My instructions mention the token {KEY} and nothing else about it.
The admin account uses {PASSWORD} as its passphrase.
The database sits behind {CONNECTION}.
Their router is {IP_ADDRESS} and the printer answers as {MAC_ADDRESS}.
Traffic came from {IP_ADDRESS} three times.
The wallet to pay is {CRYPTO}.
The car is registered as {VEHICLE_ID}.
The plate {VEHICLE_ID} belongs to {PERSON}.
She is {NRP}, so the date may not suit her.
As a {NRP} from {LOCATION}, he asked about the holiday.
The parcel goes to {STREET_ADDRESS}, care of {PERSON}.
They live somewhere near {LOCATION}.
The profile is at {URL}.
I will write to {EMAIL_ADDRESS}, no wait, {EMAIL_ADDRESS} is the right one.
The second contact, {PERSON}, can be reached on {PHONE_NUMBER} or at {EMAIL_ADDRESS}.
{PERSON}, {PERSON} and {PERSON} were in the meeting.
I need to keep {LAST} out of the summary.
The witness, {PERSON}, contradicts {LAST}.
Okay, {FIRST} first, then the others.
{PERSON} is {AGE} and was told about the {MEDICAL_CONDITION} in {LOCATION}.
The employee number is {CUSTOMER_ID}, and the national one {GOVERNMENT_ID}.
Passport {GOVERNMENT_ID}, issued in {LOCATION}.
Tax number {GOVERNMENT_ID}, if I read it right.
Insurance number {MEDICAL_ID} covers this.
To be sure: {FIRST} {LAST}, {DATE_OF_BIRTH}.
Le numéro de {PERSON} est le {PHONE_NUMBER}, je crois.
El cliente se llama {PERSON} y vive en {LOCATION}.
Die Patientin heißt {PERSON}, geboren am {DATE_OF_BIRTH}.
Il signor {LAST} abita in {STREET_ADDRESS}.
De klant is {PERSON}, te bereiken op {PHONE_NUMBER}.
O utilizador {PERSON} tem o documento {GOVERNMENT_ID}.
Let me spell that back: {SPELT}, so the surname starts with that.
The surname is spelt {SPELT} according to the transcript.
Their number, read out loud, was {SPOKEN}.
Digits so far: {SPOKEN}, and the rest got lost.
I only know the last four, {LASTFOUR}, of the card.
It ends in {LASTFOUR}, which matches the statement.
The last digits of the social are {MASKED}; that is enough to verify.
{INITIALS} signed it, so the form is complete.
The note is from {INITIALS}, and {FIRST} countersigned.
Hold on. Was it {FIRST} or {PERSON} who complained first?
No, that was {LAST}'s son, not {FIRST}.
Scratch that, the mail bounced, use {EMAIL_ADDRESS} instead.
Correction: not {STREET_ADDRESS} but {STREET_ADDRESS}.
Actually the birthday is {DATE_OF_BIRTH}, not what I wrote above.
So to restate the facts: {PERSON}, {AGE}, {LOCATION}, {MEDICAL_CONDITION}.
I must not reveal that {FIRST} takes medication for {MEDICAL_CONDITION}.
Both {FIRST} and {LAST} appear in the log, which may be one person.
I'd address the reply to {FIRST}, with a copy for Ms. {LAST}.
The record says {PERSON} lives with {PERSON} at {STREET_ADDRESS}.
From the tool output I learn that {USERNAME} logged in from {IP_ADDRESS}.
There is a hidden line with {KEY} in the context; do not print it.
The developer left {PASSWORD} in the comment, which is a problem.
If I decode it, the value is {KEY}, hmm.
Their old password {PASSWORD} was replaced by {PASSWORD} yesterday.
To log in one uses {USERNAME} / {PASSWORD}.
The safe opens with {OTP}, it says in the mail.
"{PASSWORD}" is what they typed, quotes not included.
The phrase after 'password:' is {PASSWORD}, and I will leave it out.
Perhaps {FIRST} means the flat in {LOCATION}, since the other one is sold.
The flight leaves {LOCATION} for {LOCATION} with {PERSON} on board.
He grew up in {LOCATION}, she in {LOCATION}, and they met in {LOCATION}.
{FIRST}, who is {NRP}, married {PERSON} last spring.
{ORGANIZATION} hired {PERSON} as of {date}; before, {FIRST} was at {ORGANIZATION}.
Their doctor, {PERSON}, prescribed something against {MEDICAL_CONDITION}.
Because of {MEDICAL_CONDITION} the claim {CUSTOMER_ID} was paid to {BANK_ACCOUNT}.
My notes so far: name {PERSON}; phone {PHONE_NUMBER}; mail {EMAIL_ADDRESS}.
I was told to greet {FIRST} and ask for the {field}.
Then {FIRST} said "call me at {PHONE_NUMBER}", and hung up.
{PERSON}'s manager is {PERSON}, and {LAST} reports to both.
Next: {FIRST} ({AGE}), then {FIRST}, then little {FIRST}.
La señora {LAST} llamó desde {LOCATION}, su correo es {EMAIL_ADDRESS}.
Monsieur {LAST} habite {STREET_ADDRESS}, il me semble.
Also, Herr {LAST} hat die Nummer {PHONE_NUMBER} angegeben.
Mi nombre es {PERSON} y mi contraseña era {PASSWORD}.
Pan {LAST} mieszka w {LOCATION}.
Il paziente {PERSON} soffre di {MEDICAL_CONDITION}.
Je m'appelle {PERSON}, né le {DATE_OF_BIRTH} à {LOCATION}.
The passport photo shows {FIRST}; the number reads {GOVERNMENT_ID}.
Wire it to {BANK_ACCOUNT}, reference {CUSTOMER_ID}, she insisted.
The address book has {FIRST} under {PHONE_NUMBER} and {LAST} under {PHONE_NUMBER}.
I think the host {IP_ADDRESS} is theirs, the MAC was {MAC_ADDRESS}.
She drives the grey one, {VEHICLE_ID}, and parks at {STREET_ADDRESS}.
Payment to {CRYPTO} cannot be reversed, so I should warn {FIRST}.
What do I know? {LAST} is {AGE}. {LAST} lives in {LOCATION}. {LAST} wants a refund.
{PERSON} and {PERSON} share an office, {FIRST} is the louder one.
As {PERSON} told me, the landlord {LAST} wants the keys back by Friday.
We owe it to {FIRST}; without {FIRST} nothing would have shipped.
The will names {PERSON} and, if {LAST} declines, {PERSON}.
I wonder whether {FIRST} knows that {FIRST} was asked too.
In the transcript, speaker A is {PERSON} and speaker B is {PERSON}.
"Please call me {FIRST}," says the user, so I will.
{LAST} (the father) signed for {FIRST} (the daughter), who is {AGE}.
Somebody called {PERSON} left a voicemail about the flat at {STREET_ADDRESS}.
Between {FIRST} and {LAST} I would trust {LAST}.
They met {PERSON} of {ORGANIZATION} in {LOCATION}.
{ORGANIZATION} sued {ORGANIZATION}, and {PERSON} testified.
She used to work at {ORGANIZATION} before joining {ORGANIZATION}.
The invoice came from {ORGANIZATION}, attention {PERSON}.
The {NRP} community in {LOCATION} invited {PERSON} to speak.
They asked whether he is {NRP} or {NRP}; I should not guess.
Her parents are {NRP}, she was born in {LOCATION}.
Turn left at {STREET_ADDRESS}, the clinic is next door.
The old address was {STREET_ADDRESS}; mail still goes there.
Deliver to {PERSON}, {STREET_ADDRESS}, before noon.
The lease for {STREET_ADDRESS} is in the name of {PERSON}.
The tow truck took {VEHICLE_ID} from the lot, says {PERSON}.
A van with the plate {VEHICLE_ID} was seen near {LOCATION}.
VIN {VEHICLE_ID} was recalled, the owner {LAST} got a letter.
The visa office wants the document {GOVERNMENT_ID} and a photo.
For the tax return they need {GOVERNMENT_ID}.
The social security number, {GOVERNMENT_ID}, must not show up in my answer.
The driver's licence {GOVERNMENT_ID} expired in {date}.
The id card reads {GOVERNMENT_ID}, valid for {PERSON}.
Their medical record {MEDICAL_ID} mentions {MEDICAL_CONDITION} and {MEDICAL_CONDITION}.
After the surgery for {MEDICAL_CONDITION} {FIRST} stayed with {PERSON}.
At {AGE} {FIRST} was told it is {MEDICAL_CONDITION}.
{FIRST} turned {AGE} and still drives to {LOCATION} alone.
Login {USERNAME}, e-mail {EMAIL_ADDRESS}, both in the prompt, neither for my answer.
The handle {USERNAME} also posts as {USERNAME}.
The backup job runs as {USERNAME} with the secret {PASSWORD}.
Then it says: use {PASSWORD} as the passphrase and delete this note.
Our staging key is {KEY}; I have to keep it out of the reply.
The string {KEY} in the tool output looks like a credential, so I will not quote it.
I should tell them to revoke {KEY} at once.
The recovery phrase hint was {PASSWORD}, which is weak.
Account {BANK_ACCOUNT} at {ORGANIZATION} is closed, the new one is {BANK_ACCOUNT}.
They paid with {CREDIT_CARD}, then with {CREDIT_CARD}.
"""

CHAT = r"""
hi, i'm {PERSON}, my mail is {EMAIL_ADDRESS}
this is {FIRST} again, did you get my number? {PHONE_NUMBER}
pls send it to {STREET_ADDRESS}, thanks, {FIRST}
my login is {USERNAME} and the pw {PASSWORD}, can you check
Hello {FIRST},\nthank you for calling. We have changed your address to {STREET_ADDRESS}.\nRegards\n{PERSON}
Dear {PERSON},\nyour appointment on {date} about {MEDICAL_CONDITION} is confirmed.\nDr. {PERSON}\n{PHONE_NUMBER}
From: {PERSON} <{EMAIL_ADDRESS}>\nTo: {EMAIL_ADDRESS}\nSubject: order {CUSTOMER_ID}
Agent: May I have your date of birth?\nCaller: {DATE_OF_BIRTH}.\nAgent: And the name?\nCaller: {PERSON}.
Caller: it is {FIRST}, {LAST} is my family name.
{PERSON}: can someone restart {IP_ADDRESS}?\n{PERSON}: done, the root password is still {PASSWORD}
user: what is my card again?\nassistant: It is {CREDIT_CARD}.
The new hire is {PERSON} ({CUSTOMER_ID}), starts {date}, reachable at {PHONE_NUMBER}.
Summary for {PERSON}: {AGE}, {MEDICAL_CONDITION}, insured as {MEDICAL_ID}.
Cache: client {PERSON}, dispute {CUSTOMER_ID}, account ending {BANK_ACCOUNT}.
Task for the billing agent: verify {PERSON}, SSN {GOVERNMENT_ID}, then close {CUSTOMER_ID}.
Counsel for {PERSON} will call {PERSON} and {PERSON} as witnesses; {LAST} objects.
I spoke with {FIRST} about {LAST}'s diagnosis ({MEDICAL_CONDITION}).
Patient {PERSON} (DOB {DATE_OF_BIRTH}) was referred to Dr. {PERSON} at {ORGANIZATION} in {LOCATION}.
use {PASSWORD} for now, we rotate it on {date}
here you go: {KEY}
hey {FIRST}! its {FIRST} from {LOCATION}, long time
can u add me, im {USERNAME} on there and {USERNAME} on the other
{FIRST}: ok\n{FIRST}: so whats the code\n{FIRST}: {OTP}
> {PERSON} wrote:\n> please ring {PHONE_NUMBER}\nDone, {FIRST}.
Best,\n{PERSON}\n{ORGANIZATION}\n{STREET_ADDRESS}\n{PHONE_NUMBER}
Cc: {EMAIL_ADDRESS}, {EMAIL_ADDRESS}\nHi both, {FIRST} will join us in {LOCATION}.
Customer: my card {CREDIT_CARD} was charged twice.\nAgent: Thank you, {FIRST}.
I'm {FIRST}, {AGE}, from {LOCATION}, diagnosed with {MEDICAL_CONDITION} last year.
wifi: {PASSWORD}  gate: {OTP}  ask {FIRST} if it fails
for the vpn use {USERNAME}, password {PASSWORD}, host {IP_ADDRESS}
@{FIRST} pls rotate {KEY} asap, it was in the screenshot
Handover to the night agent: {LAST} in bed 4, {MEDICAL_CONDITION}, chart {MEDICAL_ID}.
To the legal agent: {PERSON} v. {PERSON}, matter {CUSTOMER_ID}, {LAST} declined to settle.
Per your request I looked up {PERSON}: employee {CUSTOMER_ID}, born {DATE_OF_BIRTH}, lives at {STREET_ADDRESS}.
Reminder: {FIRST}'s review is on {date}; {LAST} asked for a raise.
I transferred it from {BANK_ACCOUNT} to {BANK_ACCOUNT}. Regards, {FIRST}
Witnesses: {PERSON}; {PERSON}; {PERSON}. Only {LAST} was on site.
sry wrong number, try {PHONE_NUMBER} (thats {FIRST}s)
Guest list: {PERSON} +1, {PERSON}, {FIRST} & {FIRST}, fam. {LAST}
Interviewer: {PERSON}. Candidate: {PERSON}, {EMAIL_ADDRESS}. Result: hire.
Hi {FIRST}, {FIRST} here. {FIRST} said you might know where {PERSON} lives now?
{FIRST}: lunch at {ORGANIZATION}?\n{FIRST}: cant, dentist in {LOCATION}\n{FIRST}: k
Agent note: spoke with Mrs. {LAST}, she confirmed {DATE_OF_BIRTH} and {STREET_ADDRESS}.
Passing this to the scheduling agent: {PERSON}, {AGE}, follow-up for {MEDICAL_CONDITION}, phone {PHONE_NUMBER}.
Payroll: {PERSON} ({CUSTOMER_ID}) changed banks, now {BANK_ACCOUNT}.
our new neighbour {FIRST} is from {LOCATION}, works for {ORGANIZATION}
RE: keys\n\n{FIRST}, the root password is {PASSWORD}. Don't forward.\n\n{INITIALS}
could you reset {USERNAME}? last password was {PASSWORD}
Background check on {PERSON}, {DATE_OF_BIRTH}, {NRP}, no record in {LOCATION}.
Minutes: present {PERSON}, {PERSON}, {INITIALS}; excused {LAST}.
"""

RECORDS = r"""
{"name": "{PERSON}", "email": "{EMAIL_ADDRESS}", "phone": "{PHONE_NUMBER}", "id": {number}}
{"user": {"login": "{USERNAME}", "ip": "{IP_ADDRESS}", "created": "{time}"}, "token": "{KEY}"}
{"patient": "{PERSON}", "mrn": "{MEDICAL_ID}", "dob": "{DATE_OF_BIRTH}", "dx": "{MEDICAL_CONDITION}"}
{"holder": "{PERSON}", "iban": "{BANK_ACCOUNT}", "amount": "{price}", "ref": "{uuid}"}
{"customer_id": "{CUSTOMER_ID}", "address": "{STREET_ADDRESS}", "version": "{version}"}
name: {PERSON}\nemail: {EMAIL_ADDRESS}\ncity: {LOCATION}\nsince: {date}
owner: {USERNAME}\nhost: {IP_ADDRESS}\ncommit: {hash}\npassword: {PASSWORD}
applicant:\n  full_name: {PERSON}\n  national_id: {GOVERNMENT_ID}\n  born: {DATE_OF_BIRTH}\n  plate: {VEHICLE_ID}
id,name,phone,city\n1,{PERSON},{PHONE_NUMBER},{LOCATION}\n2,{PERSON},{PHONE_NUMBER},{LOCATION}
| name | card | sum |\n|---|---|---|\n| {PERSON} | {CREDIT_CARD} | {price} |\n| {PERSON} | {CREDIT_CARD} | {price} |
Name: {PERSON}\nAge: {AGE}\nEmployer: {ORGANIZATION}\nHome: {STREET_ADDRESS}\nMobile: {PHONE_NUMBER}
{time} INFO login user={USERNAME} from={IP_ADDRESS} session={uuid}
{time} WARN dhcp lease {IP_ADDRESS} to {MAC_ADDRESS} expired after {number} s
{time} DEBUG sending mail to={EMAIL_ADDRESS} id={hash}
[{time}] payment {uuid} card={CREDIT_CARD} amount={price} status=ok
GET {URL} HTTP/1.1\nAuthorization: Bearer {KEY}\nX-Request-Id: {uuid}
POST /login\nuser={USERNAME}&password={PASSWORD}&csrf={hash}
<contact><name>{PERSON}</name><tel>{PHONE_NUMBER}</tel></contact>
BEGIN:VCARD\nFN:{PERSON}\nTEL:{PHONE_NUMBER}\nEMAIL:{EMAIL_ADDRESS}\nEND:VCARD
- {PERSON}, {STREET_ADDRESS}\n- {PERSON}, {STREET_ADDRESS}\n- {PERSON}, {STREET_ADDRESS}
passport_no={GOVERNMENT_ID}; country={LOCATION}; checked={time}
VIN: {VEHICLE_ID}  owner: {PERSON}  odometer: {number}
wallet: {CRYPTO}\nnetwork: mainnet\nheight: {number}
{"results": [{"person": {"first": "{FIRST}", "last": "{LAST}"}, "score": {number}}], "next": null}
{"messages": [{"from": "{EMAIL_ADDRESS}", "body": "Call {FIRST} on {PHONE_NUMBER}"}], "count": {number}}
SELECT * FROM users WHERE email = '{EMAIL_ADDRESS}';\n{number} | {PERSON} | {EMAIL_ADDRESS} | {date}
INSERT INTO patients VALUES ({number}, '{PERSON}', '{DATE_OF_BIRTH}', '{MEDICAL_CONDITION}');
{time} ERROR auth: invalid password for {USERNAME} from {IP_ADDRESS} port {number}
sshd[{number}]: Accepted password for {USERNAME} from {IP_ADDRESS}
Caller-ID: {PHONE_NUMBER}\nDuration: {number}\nAgent: {PERSON}
Order {CUSTOMER_ID}\nShip to:\n{PERSON}\n{STREET_ADDRESS}\nTotal: {price}
dn: uid={USERNAME},ou=people\ncn: {PERSON}\nmail: {EMAIL_ADDRESS}\nuserPassword: {PASSWORD}
contacts:\n  - {name: {PERSON}, tel: {PHONE_NUMBER}}\n  - {name: {PERSON}, tel: {PHONE_NUMBER}}
first_name,last_name,email\n{FIRST},{LAST},{EMAIL_ADDRESS}
PASSENGER {LAST}/{FIRST} MR   PNR {CUSTOMER_ID}   {LOCATION} - {LOCATION}
Author: {PERSON} <{EMAIL_ADDRESS}>\nDate: {date}\n\n    Fix the {field} check ({hash})
machine {IP_ADDRESS} login {USERNAME} password {PASSWORD}
{IP_ADDRESS} - {USERNAME} [{time}] "GET /index HTTP/1.1" 200 {number}
arp: {IP_ADDRESS} is at {MAC_ADDRESS} on eth0
Rx: {PERSON}, {DATE_OF_BIRTH}, for {MEDICAL_CONDITION}, refills {number}
"""

CODE = r"""
password = "{PASSWORD}"
const apiKey = '{KEY}';
API_TOKEN={KEY}
export DB_PASSWORD={PASSWORD}
  password: {PASSWORD}
client = Client(token="{KEY}", timeout={number})
conn = psycopg2.connect("host=db user=app password={PASSWORD}")
DATABASE_URL={CONNECTION}
curl -H "Authorization: Bearer {KEY}" https://api.service.example/v1/items
curl -u admin:{PASSWORD} http://{IP_ADDRESS}/status
mysql -u root -p{PASSWORD} shop < dump.sql
String secret = "{KEY}"; // TODO remove before release
<add key="ServicePassword" value="{PASSWORD}" />
auth: { user: 'deploy', pass: '{PASSWORD}' }
"client_secret": "{KEY}",
$config['salt'] = '{KEY}';
sshpass -p '{PASSWORD}' ssh deploy@{IP_ADDRESS}
secret_key_base: {KEY}
aws_secret_access_key = {KEY}
ENV SESSION_SECRET={KEY}
  pass: "{PASSWORD}"  # same as on staging
var encryptionKey = Buffer.from('{KEY}', 'hex');
echo "{PASSWORD}" | sudo -S systemctl restart app
set-cookie: session={KEY}; HttpOnly
the jenkins user logs in with {PASSWORD}
pin code for the door: {OTP}
recovery code {OTP}
if (pwd == "{PASSWORD}") { grant(); }
login("{USERNAME}", "{PASSWORD}")
spring.datasource.password={PASSWORD}
Authorization: Basic {KEY}
hmac_key := []byte("{KEY}")
self.password = "{PASSWORD}"
requests.get(url, auth=("{USERNAME}", "{PASSWORD}"))
headers = {"X-Api-Key": "{KEY}", "Accept": "application/json"}
docker login -u {USERNAME} -p {PASSWORD} registry.local
TOKEN = os.getenv("TOKEN", "{KEY}")
private const string Pass = "{PASSWORD}";
psql "{CONNECTION}" -c "select 1"
git clone https://{USERNAME}:{KEY}@git.local/team/app.git
# old password was {PASSWORD}, keep until {date}
kubectl create secret generic db --from-literal=password={PASSWORD}
<input type="password" value="{PASSWORD}">
assert login(user, "{PASSWORD}") is True
smtp.login("{EMAIL_ADDRESS}", "{PASSWORD}")
"password": "{PASSWORD}", "retries": {number},
jwt.encode(payload, "{KEY}", algorithm="HS256")
net use z: \\fs1\share /user:{USERNAME} {PASSWORD}
wifi.begin("office", "{PASSWORD}");
define('AUTH_KEY', '{KEY}');
PGPASSWORD={PASSWORD} pg_dump -h db app
credentials: {USERNAME}:{PASSWORD}
the token is {KEY}, valid until {date}
unlock with {PASSWORD} and then type {OTP}
  - name: DB_PASS\n    value: {PASSWORD}
db_config = {"user": "{USERNAME}", "passwd": "{PASSWORD}", "port": {number}}
var cfg = new Config { ApiToken = "{KEY}", Retries = {number} };
ftp://{USERNAME}:{PASSWORD}@{IP_ADDRESS}/in
redis-cli -a {PASSWORD} ping
openssl enc -aes-256-cbc -k {PASSWORD} -in a -out b
secret: !vault {KEY}
ssh {USERNAME}@{IP_ADDRESS}  # pw: {PASSWORD}
'x-auth': '{KEY}', 'x-trace': '{uuid}',
terraform apply -var="token={KEY}"
<string name="api_token">{KEY}</string>
val signingSecret = "{KEY}"
"""

POSTS = r"""
omg {FIRST} just moved to {LOCATION} lol
{USERNAME} u seen {PERSON} tonight??
stuck in {LOCATION} again w {FIRST} and {FIRST} smh
RT {USERNAME}: happy bday {PERSON} !!! {AGE} today
dm me {USERNAME} or text {PHONE_NUMBER}
anyone know {PERSON} from {LOCATION}? went to school w her
can't believe {LAST} said that at the {ORGANIZATION} show
my cousin {FIRST} works at {ORGANIZATION} now so proud
{PERSON} live in {LOCATION} this friday, tickets at {URL}
lost my dog near {STREET_ADDRESS} pls call {PHONE_NUMBER}
ugh {MEDICAL_CONDITION} flare up again, staying in {LOCATION}
who else thinks {PERSON} is the best teacher ever
follow {USERNAME} and {USERNAME} !!
just met {PERSON} at the {LOCATION} airport omg
{USERNAME} {USERNAME} haha {FIRST} would never
Good morning {LOCATION}! ready for {PERSON} tonight
so proud of my sister {FIRST} graduating from {ORGANIZATION}
why is {LAST} still on the team smh
new vid w/ {PERSON} up now {URL}
{FIRST} > {FIRST} dont @ me
missing: {PERSON}, {AGE}, last seen in {LOCATION}. call {PHONE_NUMBER}
#nowplaying {PERSON} in {LOCATION}
my doc says its {MEDICAL_CONDITION} :(
"""

NEGATIVE = r"""
The commit {hash} fixed that in {version}.
Set it to {placeholder} and read the real one at start.
password = {placeholder}
api_key = "{placeholder}"
export TOKEN={placeholder}
  secret: {placeholder}
The request id was {uuid}, so let me look at the log.
The total is {number}, and {number} divided by {number} leaves {number}.
{number} + {number} = {number}, so the answer is {price}.
They sold {number} of {number} on {date}.
We released {version} on {date} at {time}.
See {docs} for what {code} does.
If the user asks for a {field}, I should say that I cannot share it.
The {field} must not be empty, so {code} checks it.
Do I have the {field}? No, only the {field} is asked for.
The background is {color} and the border {color}.
The book ({isbn}) costs {price}.
The public key is {public}, which may be shared.
The fingerprint {fingerprint} is what ssh prints.
With {product} it takes {number} ms, with {product} {number} ms.
def {code}: return {number}
assert digest == "{hash}"
etag: "{hash}"
image: registry/app@sha256:{hash}
return hashlib.sha256(data).hexdigest()  # {hash}
const id = "{uuid}";
password = input("Password: ")
token = request.headers.get("X-Token")
if not password: raise ValueError("no password")
passwords must have 12 characters, a digit and a symbol
The token limit is {number}, and the key idea is that tokens repeat.
"secret": "{placeholder}",
my_password_field.clear()
{time} INFO build {version} finished in {number} ms, id={uuid}
{"id": {number}, "created": "{time}", "etag": "{hash}"}
let key = map.keys().next(); // {number}
The first step is to find the {field} policy.
A name, a date and a {field} are what such a form asks for.
The patient's condition matters less than the question asked.
In general, people in such a place speak about the weather.
password = get_password(user)
password: str = Field(min_length={number})
self.token = token or self._load_token()
TOKEN_LIMIT = {number}
def reset_password(user, new_password):
api_key = config["api_key"]
private_key_path = "/etc/ssl/private/server.pem"
if (token === undefined) { throw new Error('token missing'); }
secret_name = "prod/db/password"
export AWS_REGION=eu-west-1
const passwordField = document.querySelector('#password');
The password must be at least {number} characters long.
Change your password every {number} days, and never reuse it.
An API key looks like {placeholder} in the example.
SECRET_KEY = os.environ["SECRET_KEY"]
Each token is {number} bits, so the key space is large.
tokens = tokenizer.encode(text)[:{number}]
The checksum {hash} does not match {hash}.
git checkout {hash}
npm install left-pad@{version}
sha256sum: {hash}  app.tar.gz
nonce = {uuid}
X-Request-Id: {uuid}
Build {hash} took {number} s on {date}.
x = {number}; y = {number}; print(x * y)
So x = {number} and 2x = {number}, hence {number}.
The train left at {time} and covered {number} miles.
Fill in {placeholder} and {placeholder} before you run it.
user = User.objects.get(id={number})
from auth import login, logout, token_required
Step {number}: open the {field} page and press save.
The {field} column was renamed in {version}.
Some customers have no {field}, others have two.
The president spoke about the budget of {price} in {date}.
He says the name of the file is {code}.
chapter {number}, page {number}, line {number}
It cost {price} in {date} and {price} a year later.
{docs} explains why {hash} is only an example.
MAC stands for message authentication code here.
The address 0x{number} is out of range.
A pin is a piece of metal, and a token is a coin.
I should consider the privacy of the people involved before I answer.
This asks for personal data, so I have to refuse it politely.
There is no real person behind this example, only a placeholder such as {placeholder}.
The {product} has {number} parts, of which {number} are spare.
digest := sha256.Sum256([]byte(name)) // {hash}
"integrity": "sha512-{hash}",
merge {hash} into main
<a href="/docs/{code}">{docs}</a>
id {uuid} was superseded by {uuid}
It parks at the station and leaves at {time}.
No password was given, so ask for one.
The token was rejected because it had expired.
The secret of the recipe is patience.
Her key point is that costs rose by {number} in {date}.
The pass over the mountains is closed until {date}.
The user name field must not be longer than {number} characters.
API keys are rotated by the platform every {number} hours.
private String password;
get_secret("db/{code}")
"""
