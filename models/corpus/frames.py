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
"""
