//! The tenants' signing keys, read from where the settings say. They sign, and serve nothing else; no error, event or log names more of
//! them than where they were looked for.

use crate::credentials;
use crate::error::HarnessError;
use crate::settings::application::{KeyEncoding, KeyPlace, KeySource};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use provisioner::TenantId;
use std::fmt;

/// What Standard Webhooks writes before a key.
const STANDARD_WEBHOOKS: &str = "whsec_";

/// A signing key.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[redacted]")
    }
}

impl Key {
    /// Of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Key(bytes.into())
    }

    /// The bytes, for whoever signs with them.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A tenant's key.
///
/// # Errors
/// It is not where the settings say, is empty, or is written in another way.
pub(super) async fn of(
    client: &kube::Client,
    source: &KeySource,
    tenant: &TenantId,
) -> Result<Key, HarnessError> {
    let (place, read) = match &source.place {
        KeyPlace::Secret(secret) => {
            let read = credentials::read(client, tenant, secret).await?;
            let place = format!("secret {} in namespace {}", secret.name, tenant.namespace());
            (place, Ok(read.expose().as_bytes().to_vec()))
        }
        KeyPlace::File(path) => {
            let path = path.fill(&[("tenant", tenant.as_str())]);
            let read = std::fs::read(&path).map_err(|error| format!("cannot be read: {error}"));
            (format!("file {path}"), read.map(without_line_end))
        }
        KeyPlace::Environment(name) => {
            let name = name.fill(&[("TENANT", &tenant.as_str().to_uppercase().replace('-', "_"))]);
            let value = std::env::var_os(&name).map(std::ffi::OsString::into_encoded_bytes);
            (
                format!("environment variable {name}"),
                value.ok_or_else(|| "is not set".to_owned()),
            )
        }
    };
    let key = read.and_then(|bytes| decoded(bytes, source.encoding));
    key.map_err(|why| {
        HarnessError::new(format!("the signing key of {tenant}: {place} {why}"))
            .hint("application.secret in the settings says where each tenant's key is, and how it is written")
    })
}

/// A line's end at the end of a file is not part of what it holds.
fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        bytes.pop();
    }
    bytes
}

/// What is written in this way. The decoders' own errors quote what they read.
fn decoded(bytes: Vec<u8>, encoding: KeyEncoding) -> Result<Key, String> {
    let bytes = match encoding {
        KeyEncoding::Text => Some(bytes),
        KeyEncoding::Hex => hex::decode(bytes.trim_ascii()).ok(),
        KeyEncoding::Base64 => {
            let text = bytes.trim_ascii();
            let text = text.strip_prefix(STANDARD_WEBHOOKS.as_bytes()).unwrap_or(text);
            STANDARD.decode(text).ok()
        }
    };
    match bytes {
        None => Err("is not written as application.secret.encoding says".to_owned()),
        Some(bytes) if bytes.is_empty() => Err("is empty".to_owned()),
        Some(bytes) => Ok(Key(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Server, answer, ok, refuse};
    use crate::settings::SecretRef;
    use crate::settings::template::Template;
    use rstest::rstest;
    use serde_json::json;

    fn tenant() -> TenantId {
        TenantId::try_from("acme-corp").unwrap()
    }
    async fn nobody() -> Server {
        answer(|_| refuse(500, "InternalError", "nobody asks")).await
    }
    async fn read(server: &Server, place: KeyPlace, tenant: &TenantId) -> Result<Key, HarnessError> {
        let encoding = KeyEncoding::Text;
        of(&server.client(), &KeySource { place, encoding }, tenant).await
    }

    #[test]
    fn a_key_shows_nothing() {
        assert_eq!(format!("{:?}", Key::new("hunter2")), "[redacted]");
    }

    #[tokio::test]
    async fn a_key_is_read_from_the_tenants_own_secret() {
        let server = answer(|request| {
            assert_eq!(
                request.uri().path(),
                "/api/v1/namespaces/ai-agents-acme-corp/secrets/s"
            );
            ok(
                &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "data": { "K": "aHVudGVyMg==" } }),
            )
        })
        .await;
        let secret = SecretRef {
            name: "s".into(),
            key: "K".into(),
        };
        let key = read(&server, KeyPlace::Secret(secret), &tenant()).await.unwrap();
        assert_eq!(key.bytes(), b"hunter2");
    }

    #[tokio::test]
    async fn a_key_may_be_in_a_file_of_the_tenants() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("acme-corp.key"), "hunter2\n").unwrap();
        let path = format!("{}/{{tenant}}.key", directory.path().display());
        let place = KeyPlace::File(Template::parse(&path, &["tenant"]).unwrap());
        let server = nobody().await;
        let key = read(&server, place.clone(), &tenant()).await.unwrap();
        assert_eq!(key.bytes(), b"hunter2");
        let other = TenantId::try_from("globex").unwrap();
        let error = read(&server, place, &other).await.unwrap_err();
        assert!(
            error.what.contains("globex.key cannot be read") && error.hint.is_some(),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named_as_the_tenant_has_it() {
        let name = Template::parse("CONFORMANCE_TEST_{TENANT}", &["TENANT"]).unwrap();
        let error = read(&nobody().await, KeyPlace::Environment(name), &tenant())
            .await
            .unwrap_err();
        assert!(
            error.what.contains("CONFORMANCE_TEST_ACME_CORP is not set"),
            "{error}"
        );
    }

    #[rstest]
    #[case::text("ab", KeyEncoding::Text, Ok(&b"ab"[..]))]
    #[case::hex("6162", KeyEncoding::Hex, Ok(&b"ab"[..]))]
    #[case::base64("YWI=", KeyEncoding::Base64, Ok(&b"ab"[..]))]
    #[case::standard_webhooks("whsec_YWI=", KeyEncoding::Base64, Ok(&b"ab"[..]))]
    #[case::empty("", KeyEncoding::Text, Err("is empty"))]
    #[case::no_hex(
        "hunter2",
        KeyEncoding::Hex,
        Err("is not written as application.secret.encoding says")
    )]
    #[case::no_base64(
        "hunter2!",
        KeyEncoding::Base64,
        Err("is not written as application.secret.encoding says")
    )]
    fn keys_are_decoded_and_never_quoted(
        #[case] text: &str,
        #[case] encoding: KeyEncoding,
        #[case] expected: Result<&[u8], &str>,
    ) {
        let decoded = decoded(text.as_bytes().to_vec(), encoding);
        let decoded = decoded.as_ref().map(Key::bytes).map_err(String::as_str);
        assert_eq!(decoded, expected);
    }
}
