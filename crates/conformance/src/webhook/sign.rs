//! Signatures of webhooks, made independently of the application and held against published vectors: RFC 2202, RFC 4231, those of GitHub
//! and of Standard Webhooks.

use super::key::Key;
use crate::error::HarnessError;
use crate::settings::application::{Algorithm, Encoding, Signature};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

/// What is signed beside the body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// The timestamp as it is written; empty where there is none.
    pub timestamp: &'a str,
    /// The webhook's own id.
    pub nonce: &'a str,
    /// The tenant to whose address it goes.
    pub tenant: &'a str,
    /// The body as it is sent.
    pub body: &'a str,
}

/// The signature of a webhook, as it is written in `{signature}`.
///
/// # Errors
/// None that is known: HMAC takes keys of every length.
pub(super) fn signature(form: &Signature, key: &Key, signed: &Signed<'_>) -> Result<String, HarnessError> {
    let text = form.signed.fill(&[
        ("timestamp", signed.timestamp),
        ("nonce", signed.nonce),
        ("tenant", signed.tenant),
        ("body", signed.body),
    ]);
    let code = match form.algorithm {
        Algorithm::HmacSha1 => code::<Hmac<Sha1>>(key, text.as_bytes()),
        Algorithm::HmacSha256 => code::<Hmac<Sha256>>(key, text.as_bytes()),
        Algorithm::HmacSha512 => code::<Hmac<Sha512>>(key, text.as_bytes()),
    }?;
    Ok(match form.encoding {
        Encoding::Hex => hex::encode(code),
        Encoding::Base64 => STANDARD.encode(code),
    })
}

fn code<M: Mac + KeyInit>(key: &Key, text: &[u8]) -> Result<Vec<u8>, HarnessError> {
    let mac = <M as KeyInit>::new_from_slice(key.bytes());
    let mut mac =
        mac.map_err(|_| HarnessError::new("sign a webhook: the key has a length that HMAC does not take"))?;
    mac.update(text);
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::template::Template;
    use rstest::rstest;

    fn form(algorithm: Algorithm, encoding: Encoding, signed: &str) -> Signature {
        Signature {
            header: "x-signature".parse().unwrap(),
            algorithm,
            encoding,
            value: Template::parse("{signature}", &["signature", "timestamp"]).unwrap(),
            signed: Template::parse(signed, &["body", "timestamp", "nonce"]).unwrap(),
        }
    }

    /// RFC 2202 (test case 2) and RFC 4231 (test case 2).
    #[rstest]
    #[case::sha1(Algorithm::HmacSha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")]
    #[case::sha256(
        Algorithm::HmacSha256,
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )]
    #[case::sha512(
        Algorithm::HmacSha512,
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    )]
    fn codes_are_those_of_the_rfcs(#[case] algorithm: Algorithm, #[case] expected: &str) {
        let signed = Signed {
            timestamp: "",
            nonce: "",
            tenant: "",
            body: "what do ya want for nothing?",
        };
        let form = form(algorithm, Encoding::Hex, "{body}");
        assert_eq!(signature(&form, &Key::new("Jefe"), &signed).unwrap(), expected);
    }

    /// GitHub's documentation, "Validating webhook deliveries".
    #[test]
    fn a_signature_is_githubs() {
        let signed = Signed {
            timestamp: "",
            nonce: "",
            tenant: "",
            body: "Hello, World!",
        };
        let form = form(Algorithm::HmacSha256, Encoding::Hex, "{body}");
        assert_eq!(
            signature(&form, &Key::new("It's a Secret to Everybody"), &signed).unwrap(),
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }

    /// The test of Standard Webhooks' libraries; its key is `whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw`.
    #[test]
    fn a_signature_is_standard_webhooks() {
        let signed = Signed {
            timestamp: "1614265330",
            nonce: "msg_p5jXN8AQM9LWM0D4loKWxJek",
            tenant: "",
            body: r#"{"test": 2432232314}"#,
        };
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let form = form(
            Algorithm::HmacSha256,
            Encoding::Base64,
            "{nonce}.{timestamp}.{body}",
        );
        assert_eq!(
            signature(&form, &Key::new(key), &signed).unwrap(),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
