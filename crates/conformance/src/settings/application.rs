//! The application's contract, as configuration: where webhooks are sent, how they are signed, and how one that was enhanced is seen. What
//! is done with it is left to `webhook`. The embedded defaults are the contract of `fixtures/enhancer`.

use super::template::Template;
use super::{SecretRef, SettingsError, invalid};
use http::HeaderName;
use jiff::SignedDuration;
use provisioner::TenantId;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The nonces of all runs: `conformance-RUN-` and sixteen hexadecimal digits (`webhook::nonce`).
pub const NONCES: &str = "conformance-[0-9a-f]{8}-[0-9a-f]{16}";

/// Bounds of `within`.
const WITHIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Bounds of `timestamp.tolerance`.
const TOLERANCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));

/// How the application takes webhooks, and what can be seen of them.
#[derive(Debug, Clone)]
pub struct Application {
    /// Where webhooks are sent. Places: `{ingress}`, `{tenant}`.
    pub url: Template,
    /// What stands for `{ingress}`: an address without path. A local cluster says it itself.
    pub ingress: Option<String>,
    /// The Host header, where it is not the address's own. Places: `{tenant}`.
    pub host: Option<Template>,
    /// More headers of every webhook. Places: `{tenant}`, `{nonce}`.
    pub headers: Vec<(HeaderName, Template)>,
    /// How webhooks are signed.
    pub signature: Signature,
    /// The timestamp, where the contract has one.
    pub timestamp: Option<TimestampForm>,
    /// What is sent.
    pub payload: Payload,
    /// Where a sender may claim a tenant.
    pub claims: Claims,
    /// Where the signing keys are.
    pub secret: KeySource,
    /// How an enhanced webhook is seen.
    pub outcome: Outcome,
    /// What is looked for in pod logs.
    pub log: LogForm,
    /// How long an accepted webhook may take until it is enhanced.
    pub within: Duration,
}

/// How webhooks are signed.
#[derive(Debug, Clone)]
pub struct Signature {
    /// The header that carries it.
    pub header: HeaderName,
    /// The message authentication code.
    pub algorithm: Algorithm,
    /// How its bytes are written.
    pub encoding: Encoding,
    /// The header's value. Places: `{signature}`, `{timestamp}`.
    pub value: Template,
    /// What is signed. Places: `{body}`, `{timestamp}`, `{nonce}`, and `{tenant}`, to whose address it goes.
    pub signed: Template,
}

/// A message authentication code (RFC 2104) by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// With SHA-1.
    HmacSha1,
    /// With SHA-256.
    HmacSha256,
    /// With SHA-512.
    HmacSha512,
}

/// How bytes are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Hexadecimal, lower case.
    Hex,
    /// Base 64, with padding (RFC 4648, section 4).
    Base64,
}

/// The timestamp of a webhook.
#[derive(Debug, Clone)]
pub struct TimestampForm {
    /// The header that carries it; none where the signature's does.
    pub header: Option<HeaderName>,
    /// How it is written.
    pub format: TimestampFormat,
    /// How far from the receiver's clock it may be.
    pub tolerance: Duration,
}

/// How a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampFormat {
    /// Seconds since the Unix epoch.
    Unix,
    /// Milliseconds since the Unix epoch.
    UnixMillis,
    /// RFC 3339, in UTC, to the second.
    Rfc3339,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Payload {
    /// Its media type.
    pub content_type: String,
    /// The body. Places: `{nonce}`, `{tenant}`. A nonce is lower case letters, digits and `-`, so it needs no escaping.
    pub template: Template,
}

/// Where a sender may claim to be a tenant's.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Headers.
    pub headers: Vec<HeaderName>,
    /// Fields of the body, where that is a JSON object.
    pub fields: Vec<String>,
}

/// Where each tenant's signing key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    /// Where it is read.
    pub place: KeyPlace,
    /// How its bytes are written there.
    pub encoding: KeyEncoding,
}

/// Where a signing key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// A Secret in the tenant's namespace.
    Secret(SecretRef),
    /// A file. Places: `{tenant}`.
    File(Template),
    /// An environment variable. Places: `{TENANT}`, the id in upper case with `_` for `-`.
    Environment(Template),
}

/// How a signing key's bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeyEncoding {
    /// The text itself is the key.
    #[default]
    Text,
    /// Hexadecimal.
    Hex,
    /// Base 64; a prefix `whsec_` (Standard Webhooks) is not part of it.
    Base64,
}

/// How an enhanced webhook is seen.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// By a query with the tenant's own credentials, from inside of its namespace.
    Sql {
        /// Answers a row for a webhook that was enhanced; `$1` is its nonce. The first column may name the worker; where it is null the
        /// webhook is not enhanced yet.
        query: String,
        /// Removes what the run's webhooks stored; `$1` is a LIKE pattern for their nonces.
        remove: Option<String>,
    },
    /// By the answer at an address.
    Http {
        /// The address. Places: `{ingress}`, `{tenant}`, `{nonce}`.
        url: Template,
        /// The Host header, as for webhooks. Places: `{tenant}`.
        host: Option<Template>,
        /// What the body of a 200 shows; a group `worker` may name the worker.
        expect: Regex,
    },
    /// By [`LogForm::enhanced`] alone.
    Log,
}

/// What is looked for in pod logs.
#[derive(Debug, Clone)]
pub struct LogForm {
    /// A line that says that a webhook was enhanced; the group `nonce` is whose.
    pub enhanced: Regex,
    /// The labels of workers' pods.
    pub worker: BTreeMap<String, String>,
}

/// `application:` of a settings file, or a part of it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApplicationFile {
    /// Where webhooks are sent. Places: {ingress}, {tenant}.
    url: Option<String>,
    /// The Host header, where it is not the address's own. Places: {tenant}.
    host: Option<String>,
    /// More headers of every webhook. Places: {tenant}, {nonce}.
    headers: Option<BTreeMap<String, String>>,
    /// How webhooks are signed; brings its timestamp along.
    signature: Option<SignatureFile>,
    /// The timestamp, where the contract has one.
    timestamp: Option<TimestampFile>,
    /// What is sent.
    payload: Option<PayloadFile>,
    /// Where a sender may claim to be another tenant's.
    claims: Option<ClaimsFile>,
    /// Where each tenant's signing key is: exactly one of secretRef, file and environment.
    secret: Option<SecretFile>,
    /// How an enhanced webhook is seen: exactly one of sql, http and log.
    outcome: Option<OutcomeFile>,
    /// What is looked for in pod logs.
    log: Option<LogFile>,
    /// How long an accepted webhook may take until it is enhanced: 1s to 60s.
    within: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignatureFile {
    /// The header that carries it.
    header: String,
    /// The message authentication code.
    algorithm: Algorithm,
    /// How its bytes are written.
    encoding: Encoding,
    /// The header's value. Places: {signature}, {timestamp}.
    value: String,
    /// What is signed. Places: {body}, {timestamp}, {nonce}, {tenant}.
    signed: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TimestampFile {
    /// The header that carries it; left out where the signature's does.
    header: Option<String>,
    /// How it is written.
    format: TimestampFormat,
    /// How far from the receiver's clock it may be, as in 5m.
    tolerance: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PayloadFile {
    /// Its media type.
    content_type: String,
    /// The body. Places: {nonce}, {tenant}.
    template: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClaimsFile {
    /// Headers.
    #[serde(default)]
    headers: Vec<String>,
    /// Fields of the body, where that is a JSON object.
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretFile {
    /// A Secret in the tenant's namespace.
    secret_ref: Option<SecretRef>,
    /// A file. Places: {tenant}.
    file: Option<String>,
    /// An environment variable. Places: {TENANT}, the id in upper case with `_` for `-`.
    environment: Option<String>,
    /// How the key's bytes are written there.
    #[serde(default)]
    encoding: KeyEncoding,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutcomeFile {
    /// By a query with the tenant's own credentials, from inside of its namespace.
    sql: Option<SqlFile>,
    /// By the answer at an address.
    http: Option<HttpFile>,
    /// By the workers' log alone.
    log: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SqlFile {
    /// Answers a row for a webhook that was enhanced; $1 is its nonce.
    query: String,
    /// Removes what the run's webhooks stored; $1 is a LIKE pattern for their nonces.
    remove: Option<String>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpFile {
    /// The address. Places: {ingress}, {tenant}, {nonce}.
    url: String,
    /// The Host header. Places: {tenant}.
    host: Option<String>,
    /// What the body of a 200 shows, a regular expression; a group (?<worker>…) may name the worker.
    expect: String,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogFile {
    /// A line that says that a webhook was enhanced, a regular expression that holds {nonce} once.
    enhanced: String,
    /// The labels of the workers' pods.
    worker: String,
}

impl Application {
    /// Whether an address is known: `{ingress}` is filled in, or not needed.
    pub fn has_address(&self) -> bool {
        self.ingress.is_some() || !self.needs_ingress()
    }

    fn needs_ingress(&self) -> bool {
        let outcome = match &self.outcome {
            Outcome::Http { url, .. } => url.holds("ingress"),
            Outcome::Sql { .. } | Outcome::Log => false,
        };
        self.url.holds("ingress") || outcome
    }

    /// Where webhooks for a tenant are sent.
    pub fn address(&self, tenant: &TenantId) -> String {
        let ingress = self.ingress.as_deref().unwrap_or_default();
        self.url
            .fill(&[("ingress", ingress), ("tenant", tenant.as_str())])
    }

    /// Where a tenant is asked what became of a webhook, where that is asked over HTTP.
    pub fn outcome_address(&self, tenant: &TenantId, nonce: &str) -> Option<String> {
        let Outcome::Http { url, .. } = &self.outcome else {
            return None;
        };
        let ingress = self.ingress.as_deref().unwrap_or_default();
        Some(url.fill(&[
            ("ingress", ingress),
            ("tenant", tenant.as_str()),
            ("nonce", nonce),
        ]))
    }
}

/// The contract: each field from the file, else from the defaults. A signature brings its timestamp along: who writes the one writes the
/// other, or the contract has none.
///
/// # Errors
/// A value that cannot be used, with its field and the remedy.
pub(super) fn resolve(
    file: Option<ApplicationFile>,
    defaults: Option<ApplicationFile>,
) -> Result<Application, SettingsError> {
    let (file, defaults) = (file.unwrap_or_default(), defaults.unwrap_or_default());
    let timestamp = match (&file.signature, file.timestamp) {
        (Some(_), timestamp) => timestamp,
        (None, timestamp) => timestamp.or(defaults.timestamp),
    };
    let timestamp = timestamp.map(timestamp_form).transpose()?;
    let signature = given("signature", file.signature.or(defaults.signature))?;
    let headers = file.headers.or(defaults.headers).unwrap_or_default();
    let host = file.host.or(defaults.host);
    let application = Application {
        url: address(
            "url",
            &given("url", file.url.or(defaults.url))?,
            &["ingress", "tenant"],
        )?,
        ingress: None,
        host: host
            .map(|host| template("host", &host, &["tenant"]))
            .transpose()?,
        headers: headers
            .iter()
            .map(|(name, value)| {
                let value = template(&format!("headers.{name}"), value, &["tenant", "nonce"])?;
                Ok((header("headers", name)?, value))
            })
            .collect::<Result<_, SettingsError>>()?,
        signature: signed(&signature, timestamp.as_ref())?,
        timestamp,
        payload: payload(given("payload", file.payload.or(defaults.payload))?)?,
        claims: claims(given("claims", file.claims.or(defaults.claims))?)?,
        secret: secret(given("secret", file.secret.or(defaults.secret))?)?,
        outcome: outcome(given("outcome", file.outcome.or(defaults.outcome))?)?,
        log: log(&given("log", file.log.or(defaults.log))?)?,
        within: bounded(
            "within",
            &given("within", file.within.or(defaults.within))?,
            WITHIN,
        )?,
    };
    addressed(application)
}

/// Something must say whose webhook it is.
fn addressed(application: Application) -> Result<Application, SettingsError> {
    let in_headers = application.headers.iter().any(|(_, value)| value.holds("tenant"));
    let in_host = application.host.as_ref().is_some_and(|host| host.holds("tenant"));
    if application.url.holds("tenant")
        || in_host
        || in_headers
        || application.payload.template.holds("tenant")
    {
        return Ok(application);
    }
    Err(invalid(
        "application.url",
        "expected {tenant} in url, host, headers or payload.template, found it in none: nothing says whose webhook it is",
        "write {tenant} where the tenant's id belongs, as in https://hooks.example.com/webhook/{tenant}",
    ))
}

fn place(field: &str) -> String {
    format!("application.{field}")
}

fn given<T>(field: &str, value: Option<T>) -> Result<T, SettingsError> {
    value.ok_or_else(|| {
        invalid(
            place(field),
            "is missing",
            "crates/conformance/src/settings.yaml shows every field",
        )
    })
}

fn template(field: &str, text: &str, known: &[&'static str]) -> Result<Template, SettingsError> {
    Template::parse(text, known).map_err(|problem| {
        invalid(
            place(field),
            problem,
            "write one of these, or leave the braces out",
        )
    })
}

/// An address that is one whatever is put in.
fn address(field: &str, text: &str, known: &[&'static str]) -> Result<Template, SettingsError> {
    let address = template(field, text, known)?;
    let sample = address.fill(&[
        ("ingress", "http://ingress.invalid"),
        ("tenant", "a"),
        ("nonce", "n"),
    ]);
    let problem = match reqwest::Url::parse(&sample) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => return Ok(address),
        Ok(url) => format!("expected http or https, found {}", url.scheme()),
        Err(error) => format!("{text:?} is no address: {error}"),
    };
    Err(invalid(
        place(field),
        problem,
        "write it as https://hooks.example.com/webhook/{tenant}",
    ))
}

fn header(field: &str, name: &str) -> Result<HeaderName, SettingsError> {
    name.parse().map_err(|_| {
        invalid(
            place(field),
            format!("{name:?} is no name of a header"),
            "write it as X-Webhook-Signature",
        )
    })
}

fn signed(file: &SignatureFile, timestamp: Option<&TimestampForm>) -> Result<Signature, SettingsError> {
    let signature = Signature {
        header: header("signature.header", &file.header)?,
        algorithm: file.algorithm,
        encoding: file.encoding,
        value: template("signature.value", &file.value, &["signature", "timestamp"])?,
        signed: template(
            "signature.signed",
            &file.signed,
            &["body", "timestamp", "nonce", "tenant"],
        )?,
    };
    let fail = |field: &str, problem: &str, hint: &str| Err(invalid(place(field), problem, hint));
    if !signature.value.holds("signature") {
        return fail(
            "signature.value",
            "expected {signature} in it, found none",
            "write it as sha256={signature}",
        );
    }
    if !signature.signed.holds("body") {
        return fail(
            "signature.signed",
            "expected {body} in it, found none",
            "write it as {body}, or {timestamp}.{body}",
        );
    }
    match timestamp {
        None if signature.value.holds("timestamp") || signature.signed.holds("timestamp") => fail(
            "timestamp",
            "is missing, though the signature holds {timestamp}",
            "write timestamp beside signature: its header, format and tolerance",
        ),
        Some(form) if form.header.is_none() && !signature.value.holds("timestamp") => fail(
            "timestamp.header",
            "is missing, and signature.value does not hold {timestamp} either",
            "name the header, or put {timestamp} into signature.value",
        ),
        _ => Ok(signature),
    }
}

fn timestamp_form(file: TimestampFile) -> Result<TimestampForm, SettingsError> {
    let name = file.header.map(|name| header("timestamp.header", &name));
    Ok(TimestampForm {
        header: name.transpose()?,
        format: file.format,
        tolerance: bounded("timestamp.tolerance", &file.tolerance, TOLERANCE)?,
    })
}

fn payload(file: PayloadFile) -> Result<Payload, SettingsError> {
    let body = template("payload.template", &file.template, &["nonce", "tenant"])?;
    if !body.holds("nonce") {
        return Err(invalid(
            place("payload.template"),
            "expected {nonce} in it, found none: what became of a webhook could not be told",
            "put {nonce} where the webhook's own id belongs",
        ));
    }
    if http::HeaderValue::from_str(&file.content_type).is_err() || file.content_type.is_empty() {
        return Err(invalid(
            place("payload.contentType"),
            format!("{:?} is no value of a header", file.content_type),
            "write it as application/json",
        ));
    }
    Ok(Payload {
        content_type: file.content_type,
        template: body,
    })
}

fn claims(file: ClaimsFile) -> Result<Claims, SettingsError> {
    let headers = file.headers.iter().map(|name| header("claims.headers", name));
    Ok(Claims {
        headers: headers.collect::<Result<_, _>>()?,
        fields: file.fields,
    })
}

fn secret(file: SecretFile) -> Result<KeySource, SettingsError> {
    let place = match (file.secret_ref, file.file, file.environment) {
        (Some(secret), None, None) => {
            secret.check("application")?;
            KeyPlace::Secret(secret)
        }
        (None, Some(path), None) => KeyPlace::File(own("secret.file", &path, "tenant")?),
        (None, None, Some(name)) => KeyPlace::Environment(own("secret.environment", &name, "TENANT")?),
        _ => {
            return Err(invalid(
                place("secret"),
                "expected exactly one of secretRef, file and environment",
                "name the one place where each tenant's key is",
            ));
        }
    };
    Ok(KeySource {
        place,
        encoding: file.encoding,
    })
}

/// A place of which each tenant has its own.
fn own(field: &str, text: &str, tenant: &'static str) -> Result<Template, SettingsError> {
    let template = template(field, text, &[tenant])?;
    if template.holds(tenant) {
        return Ok(template);
    }
    Err(invalid(
        place(field),
        format!("expected {{{tenant}}} in it, found none: all tenants would have one key"),
        format!("put {{{tenant}}} where the tenant's id belongs"),
    ))
}

fn outcome(file: OutcomeFile) -> Result<Outcome, SettingsError> {
    match (file.sql, file.http, file.log.unwrap_or_default()) {
        (Some(sql), None, false) => {
            let remove = sql.remove.map(|text| statement("outcome.sql.remove", &text));
            Ok(Outcome::Sql {
                query: statement("outcome.sql.query", &sql.query)?,
                remove: remove.transpose()?,
            })
        }
        (None, Some(http), false) => {
            let url = address("outcome.http.url", &http.url, &["ingress", "tenant", "nonce"])?;
            if !url.holds("nonce") {
                return Err(invalid(
                    place("outcome.http.url"),
                    "expected {nonce} in it, found none",
                    "put {nonce} where the webhook's own id belongs",
                ));
            }
            let host = http
                .host
                .map(|host| template("outcome.http.host", &host, &["tenant"]));
            Ok(Outcome::Http {
                url,
                host: host.transpose()?,
                expect: pattern("outcome.http.expect", &http.expect)?,
            })
        }
        (None, None, true) => Ok(Outcome::Log),
        _ => Err(invalid(
            place("outcome"),
            "expected exactly one of sql, http and log: true",
            "name the one way in which an enhanced webhook is seen",
        )),
    }
}

/// A statement about webhooks, in one line: a server logs each line by itself, and the first alone would say whose statement it is.
fn statement(field: &str, text: &str) -> Result<String, SettingsError> {
    if !text.contains("$1") {
        return Err(invalid(
            place(field),
            "expected $1 in it, found none",
            "write $1 where the webhook's nonce belongs, without quotes: where id = $1",
        ));
    }
    if text.trim().contains(['\r', '\n']) && text.contains("--") {
        return Err(invalid(
            place(field),
            "found -- in several lines, which are sent as one",
            "write a comment as /* … */",
        ));
    }
    Ok(text.trim().replace(['\r', '\n'], " "))
}

/// A regular expression; its first `{nonce}` becomes the group `nonce`.
fn pattern(field: &str, text: &str) -> Result<Regex, SettingsError> {
    let text = text.replacen("{nonce}", &format!("(?<nonce>{NONCES})"), 1);
    Regex::new(&text).map_err(|error| {
        // Its account has several lines; the last says what is wrong.
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim().to_owned();
        invalid(
            place(field),
            format!("is no regular expression: {why}"),
            "the syntax is that of https://docs.rs/regex; a `{` that is meant as such is written `\\{`",
        )
    })
}

fn log(file: &LogFile) -> Result<LogForm, SettingsError> {
    if file.enhanced.matches("{nonce}").count() != 1 {
        return Err(invalid(
            place("log.enhanced"),
            "expected {nonce} in it exactly once",
            "write {nonce} where a line names the webhook: webhook enhanced.*id={nonce}",
        ));
    }
    let mut worker = BTreeMap::new();
    for term in file.worker.split(',') {
        let pair = term.split_once('=').filter(|(key, _)| !key.trim().is_empty());
        let Some((key, value)) = pair else {
            return Err(invalid(
                place("log.worker"),
                format!("{term:?} is no label"),
                "name the labels of the workers' pods as app=ai-agents-worker",
            ));
        };
        worker.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(LogForm {
        enhanced: pattern("log.enhanced", &file.enhanced)?,
        worker,
    })
}

fn bounded(field: &str, text: &str, (least, most): (Duration, Duration)) -> Result<Duration, SettingsError> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    match parsed.and_then(|duration| Duration::try_from(duration).ok()) {
        Some(duration) if (least..=most).contains(&duration) => Ok(duration),
        _ => Err(invalid(
            place(field),
            format!(
                "{text:?} is no duration of {} s to {} s",
                least.as_secs(),
                most.as_secs()
            ),
            "write it as 10s or 5m",
        )),
    }
}

#[cfg(test)]
pub(crate) mod tests;
