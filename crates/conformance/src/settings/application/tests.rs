use super::*;
use crate::settings::{self, Overrides};
use rstest::rstest;
use std::path::Path;

const DEFAULTS: &str = include_str!("../../settings.yaml");
const TICKETDESK: &str = include_str!("../../../../../fixtures/ticketdesk/conformance.yaml");

#[derive(Deserialize)]
struct Whole {
    application: ApplicationFile,
}

fn defaults() -> ApplicationFile {
    serde_yaml::from_str::<Whole>(DEFAULTS).unwrap().application
}

/// The contract of `fixtures/ticketdesk`, from the whole file. Its paths are those of the repository's root.
pub(crate) fn ticketdesk() -> Application {
    let mut file = settings::parse(TICKETDESK, "ticketdesk").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    file.tenant_file = file.tenant_file.map(|path| root.join(path));
    let defaults = settings::parse(DEFAULTS, "embedded defaults").unwrap();
    let settings = settings::combine("lab", &Overrides::default(), file, defaults).unwrap();
    settings.application
}

fn resolved(text: &str) -> Result<Application, SettingsError> {
    resolve(Some(serde_yaml::from_str(text).unwrap()), Some(defaults()))
}

#[test]
fn the_defaults_are_the_enhancers_contract() {
    let application = resolved("{}").unwrap();
    let tenant = TenantId::try_from("acme").unwrap();
    assert!(!application.has_address());
    let application = Application {
        ingress: Some("http://127.0.0.1:8080".into()),
        ..application
    };
    assert_eq!(application.address(&tenant), "http://127.0.0.1:8080/webhook/acme");
    let line = r#"{"event":"webhook enhanced","id":"conformance-0a1b2c3d-0123456789abcdef","worker":"w"}"#;
    let found = application.log.enhanced.captures(line).unwrap();
    assert_eq!(&found["nonce"], "conformance-0a1b2c3d-0123456789abcdef");
    assert_eq!(application.within, Duration::from_secs(10));
    assert!(matches!(
        application.outcome,
        Outcome::Sql { remove: Some(_), .. }
    ));
}

#[test]
fn another_contract_replaces_what_it_names_and_a_signature_brings_its_timestamp() {
    let application = resolved(
        r#"
url: https://hooks.example.com/in
host: "{tenant}.example.com"
signature: { header: X-Hub-Signature-256, algorithm: hmac-sha512, encoding: base64, value: "sha512={signature}", signed: "{body}" }
outcome: { http: { url: "https://hooks.example.com/{nonce}", expect: "done by (?<worker>[a-z-]+)" } }
secret: { environment: "HOOK_{TENANT}", encoding: hex }
"#,
    )
    .unwrap();
    assert!(application.has_address() && application.timestamp.is_none());
    assert_eq!(application.signature.algorithm, Algorithm::HmacSha512);
    assert_eq!(application.payload.content_type, "application/json");
    assert_eq!(application.secret.encoding, KeyEncoding::Hex);
}

#[test]
fn ticketdesks_contract_is_another_in_everything() {
    let application = ticketdesk();
    let timestamp = application.timestamp.unwrap();
    assert_eq!(
        (timestamp.header, timestamp.format, timestamp.tolerance),
        (None, TimestampFormat::UnixMillis, Duration::from_secs(60))
    );
    let signature = application.signature;
    assert!(signature.value.holds("timestamp") && signature.signed.holds("tenant"));
    let Outcome::Http { url, expect, .. } = application.outcome else {
        panic!("it is asked for over HTTP");
    };
    assert!(url.holds("nonce") && expect.is_match("enhanced: CONFORMANCE PROBE\n"));
    let line = "a enhanced ticket conformance-0a1b2c3d-0123456789abcdef";
    assert!(application.log.enhanced.is_match(line));
}

#[test]
fn a_statement_is_one_line() {
    let text = "outcome: {sql: {query: \"select worker\\r\\n  from t\\nwhere id = $1\\n\", remove: \"delete from t\\nwhere id like $1\"}}";
    let Outcome::Sql { query, remove } = resolved(text).unwrap().outcome else {
        panic!("it is SQL");
    };
    assert_eq!(query, "select worker    from t where id = $1");
    assert_eq!(remove.as_deref(), Some("delete from t where id like $1"));
}

#[test]
fn a_timestamp_may_be_replaced_alone() {
    let application = resolved("timestamp: { header: X-Time, format: unix-millis, tolerance: 1m }").unwrap();
    let timestamp = application.timestamp.unwrap();
    assert_eq!(timestamp.format, TimestampFormat::UnixMillis);
    assert_eq!(application.signature.header, "x-webhook-signature");
}

#[rstest]
#[case::no_address("url: 'hooks/{tenant}'", "application.url", "is no address")]
#[case::another_scheme(
    "url: 'ftp://x/{tenant}'",
    "application.url",
    "expected http or https, found ftp"
)]
#[case::unknown_place("url: 'http://x/{tennant}'", "application.url", "{tennant}")]
#[case::nobodys("url: 'http://x/hook'", "application.url", "nothing says whose webhook it is")]
#[case::no_header(
    "signature: {header: 'a b', algorithm: hmac-sha1, encoding: hex, value: '{signature}', signed: '{body}'}",
    "application.signature.header",
    "is no name of a header"
)]
#[case::nothing_signed(
    "signature: {header: x, algorithm: hmac-sha1, encoding: hex, value: '{signature}', signed: '{nonce}'}",
    "application.signature.signed",
    "expected {body}"
)]
#[case::no_signature(
    "signature: {header: x, algorithm: hmac-sha1, encoding: hex, value: 'v1', signed: '{body}'}",
    "application.signature.value",
    "expected {signature}"
)]
#[case::no_timestamp(
    "signature: {header: x, algorithm: hmac-sha1, encoding: hex, value: '{signature}', signed: '{timestamp}{body}'}",
    "application.timestamp",
    "is missing, though"
)]
#[case::a_timestamp_that_is_not_sent(
    "timestamp: {format: unix, tolerance: 5m}",
    "application.timestamp.header",
    "is missing, and signature.value"
)]
#[case::no_tolerance(
    "timestamp: {header: x, format: unix, tolerance: long}",
    "application.timestamp.tolerance",
    "is no duration of 1 s to 86400 s"
)]
#[case::no_nonce(
    "payload: {contentType: text/plain, template: hello}",
    "application.payload.template",
    "expected {nonce}"
)]
#[case::no_media_type(
    "payload: {contentType: \"a\\nb\", template: '{nonce}'}",
    "application.payload.contentType",
    "is no value of a header"
)]
#[case::a_claim(
    "claims: {headers: ['']}",
    "application.claims.headers",
    "is no name of a header"
)]
#[case::two_secrets(
    "secret: {file: 'a{tenant}', environment: 'B_{TENANT}'}",
    "application.secret",
    "exactly one of"
)]
#[case::one_key_for_all(
    "secret: {environment: HOOK}",
    "application.secret.environment",
    "all tenants would have one key"
)]
#[case::two_outcomes(
    "outcome: {sql: {query: 'x $1'}, log: true}",
    "application.outcome",
    "exactly one of"
)]
#[case::no_outcome("outcome: {log: false}", "application.outcome", "exactly one of")]
#[case::a_query_for_nothing(
    "outcome: {sql: {query: select 1}}",
    "application.outcome.sql.query",
    "expected $1"
)]
#[case::a_removal_of_everything(
    "outcome: {sql: {query: 'x $1', remove: delete from t}}",
    "application.outcome.sql.remove",
    "expected $1"
)]
#[case::a_comment_to_the_end(
    "outcome: {sql: {query: \"select 1 -- all\\nwhere id = $1\"}}",
    "application.outcome.sql.query",
    "found --"
)]
#[case::an_address_for_nothing(
    "outcome: {http: {url: 'http://x/{tenant}', expect: x}}",
    "application.outcome.http.url",
    "expected {nonce}"
)]
#[case::no_expression(
    "outcome: {http: {url: 'http://x/{nonce}', expect: '('}}",
    "application.outcome.http.expect",
    "is no regular expression: error: unclosed group"
)]
#[case::no_nonce_in_logs(
    "log: {enhanced: done, worker: app=w}",
    "application.log.enhanced",
    "exactly once"
)]
#[case::no_label(
    "log: {enhanced: '{nonce}', worker: workers}",
    "application.log.worker",
    "\"workers\" is no label"
)]
#[case::too_long("within: 2m", "application.within", "is no duration of 1 s to 60 s")]
fn what_cannot_be_used_is_named_with_its_place(
    #[case] text: &str,
    #[case] field: &str,
    #[case] problem: &str,
) {
    let error = resolved(text).unwrap_err();
    assert_eq!(error.place, field);
    assert!(error.problem.contains(problem), "{error}");
    assert!(!error.hint.is_empty());
}

#[test]
fn a_key_is_never_part_of_the_settings() {
    assert!(serde_yaml::from_str::<ApplicationFile>("secret: { value: hunter2 }").is_err());
}
