//! One webhook: made from the contract, signed, and altered in one thing where it must be refused.

use super::key::Key;
use super::sign::{Signed, signature};
use crate::error::HarnessError;
use crate::settings::Application;
use crate::settings::application::TimestampFormat;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use provisioner::TenantId;
use serde_json::Value;

/// What stands in the signature's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureValue {
    /// There is no such header.
    Missing,
    /// The header, with this value.
    Raw(String),
    /// The header as the contract has it, with this for `{signature}`.
    Code(String),
}

/// A webhook, as it is sent.
#[derive(Debug, Clone)]
pub struct Message {
    /// The tenant to whose address it goes.
    pub to: TenantId,
    /// What is looked for afterwards.
    pub nonce: String,
    /// The timestamp, as it is written; empty where the contract has none.
    pub timestamp: String,
    /// The body.
    pub body: String,
    /// What stands in the signature's header.
    pub signature: SignatureValue,
    /// Headers beside the contract's.
    pub more: Vec<(HeaderName, String)>,
}

impl Message {
    /// One to a tenant, of this moment, not signed.
    pub fn new(application: &Application, to: &TenantId, nonce: &str, at: Timestamp) -> Self {
        let template = &application.payload.template;
        Message {
            to: to.clone(),
            nonce: nonce.to_owned(),
            timestamp: written(application, at),
            body: template.fill(&[("nonce", nonce), ("tenant", to.as_str())]),
            signature: SignatureValue::Missing,
            more: Vec::new(),
        }
    }

    /// The same, signed as it is.
    ///
    /// # Errors
    /// As for [`signature`].
    pub fn signed(mut self, application: &Application, key: &Key) -> Result<Self, HarnessError> {
        let signed = Signed {
            timestamp: &self.timestamp,
            nonce: &self.nonce,
            tenant: self.to.as_str(),
            body: &self.body,
        };
        self.signature = SignatureValue::Code(signature(&application.signature, key, &signed)?);
        Ok(self)
    }

    /// The same with another moment than the one it was signed for.
    #[must_use]
    pub fn at(mut self, application: &Application, at: Timestamp) -> Self {
        self.timestamp = written(application, at);
        self
    }

    /// The same with another body than the one it was signed for.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// Another's content under this one's timestamp and signature.
    #[must_use]
    pub fn with_content_of(mut self, other: Message) -> Self {
        self.nonce = other.nonce;
        self.body = other.body;
        self
    }

    /// The same with this in the signature's header.
    #[must_use]
    pub fn with_signature(mut self, signature: SignatureValue) -> Self {
        self.signature = signature;
        self
    }

    /// The same with a field in its body, not signed; none where the body is no JSON object.
    #[must_use]
    pub fn claiming(&self, field: &str, value: &str) -> Option<Self> {
        let mut body: Value = serde_json::from_str(&self.body).ok()?;
        body.as_object_mut()?.insert(field.to_owned(), Value::from(value));
        Some(self.clone().with_body(body.to_string()))
    }

    /// The body with its nonce's last digit changed, and that nonce: one byte is another, and it is looked for under both.
    pub fn one_byte_off(&self) -> (String, String) {
        let mut nonce = self.nonce.clone();
        let last = nonce.pop();
        nonce.push(if last == Some('0') { '1' } else { '0' });
        let body = match self.body.rfind(&self.nonce) {
            Some(at) => [&self.body[..at], &nonce, &self.body[at + self.nonce.len()..]].concat(),
            None => self.body.clone(),
        };
        (body, nonce)
    }

    /// The body as another program would write it; none where it is no JSON object.
    pub fn reserialised(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        let text = serde_json::to_string_pretty(&body).ok()?;
        (body.is_object() && text != self.body).then_some(text)
    }

    /// Its headers.
    ///
    /// # Errors
    /// One whose value HTTP does not allow.
    pub fn headers(&self, application: &Application) -> Result<HeaderMap, HarnessError> {
        let places = [("tenant", self.to.as_str()), ("nonce", self.nonce.as_str())];
        let mut headers = HeaderMap::new();
        let mut put = |name: &HeaderName, value: &str| {
            let parsed = HeaderValue::from_str(value);
            let parsed =
                parsed.map_err(|error| HarnessError::during(format!("write header {name}"), &error))?;
            headers.insert(name, parsed);
            Ok::<_, HarnessError>(())
        };
        put(&header::CONTENT_TYPE, &application.payload.content_type)?;
        if let Some(host) = &application.host {
            put(&header::HOST, &host.fill(&places))?;
        }
        for (name, value) in &application.headers {
            put(name, &value.fill(&places))?;
        }
        if let Some(name) = application
            .timestamp
            .as_ref()
            .and_then(|form| form.header.as_ref())
        {
            put(name, &self.timestamp)?;
        }
        let form = &application.signature;
        match &self.signature {
            SignatureValue::Missing => {}
            SignatureValue::Raw(value) => put(&form.header, value)?,
            SignatureValue::Code(code) => {
                let value = form
                    .value
                    .fill(&[("signature", code), ("timestamp", &self.timestamp)]);
                put(&form.header, &value)?;
            }
        }
        for (name, value) in &self.more {
            put(name, value)?;
        }
        Ok(headers)
    }
}

/// A moment as the contract writes it; empty where it has none.
fn written(application: &Application, at: Timestamp) -> String {
    match application.timestamp.as_ref().map(|form| form.format) {
        None => String::new(),
        Some(TimestampFormat::Unix) => at.as_second().to_string(),
        Some(TimestampFormat::UnixMillis) => at.as_millisecond().to_string(),
        Some(TimestampFormat::Rfc3339) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Overrides};
    use rstest::rstest;

    const NONCE: &str = "conformance-0a1b2c3d-0123456789abcdef";

    fn application() -> Application {
        settings::resolve("scripted", &Overrides::default())
            .unwrap()
            .application
    }
    fn tenant() -> TenantId {
        TenantId::try_from("acme").unwrap()
    }
    fn message(application: &Application) -> Message {
        Message::new(
            application,
            &tenant(),
            NONCE,
            Timestamp::from_second(1_700_000_000).unwrap(),
        )
    }

    #[test]
    fn a_webhook_is_what_the_contract_says() {
        let application = application();
        let message = message(&application)
            .signed(&application, &Key::new("k"))
            .unwrap();
        assert_eq!(
            message.body,
            format!(r#"{{"id":"{NONCE}","subject":"conformance probe","body":"{NONCE}"}}"#)
        );
        let headers = message.headers(&application).unwrap();
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-webhook-timestamp"], "1700000000");
        let value = headers["x-webhook-signature"].to_str().unwrap();
        assert!(value.starts_with("sha256=") && value.len() == 7 + 64, "{value}");
    }

    /// The code that `fixtures/ticketdesk` expects, by Python's `hmac`.
    #[test]
    fn a_webhook_is_what_ticketdesk_takes() {
        let application = settings::application::tests::ticketdesk();
        let message = message(&application)
            .signed(&application, &Key::new("k"))
            .unwrap();
        let headers = message.headers(&application).unwrap();
        assert_eq!(
            headers["x-desk-signature"],
            "t=1700000000000,v1=LUX56XXkir3GbLB3GfQUdFtLXa/9dhricpjVm9gnANHnO6v3hnn9PpjPZn36OCMatjIBGgyw09+nmQAgfIXRrw=="
        );
        assert!(!headers.contains_key("x-webhook-timestamp"));
    }

    #[rstest]
    #[case::unix(TimestampFormat::Unix, "1700000000")]
    #[case::millis(TimestampFormat::UnixMillis, "1700000000000")]
    #[case::rfc3339(TimestampFormat::Rfc3339, "2023-11-14T22:13:20Z")]
    fn moments_are_written_as_the_contract_does(#[case] format: TimestampFormat, #[case] expected: &str) {
        let mut application = application();
        application.timestamp.as_mut().unwrap().format = format;
        assert_eq!(message(&application).timestamp, expected);
    }

    #[test]
    fn a_signature_that_carries_the_timestamp_carries_the_one_that_is_sent() {
        let mut application = application();
        application.timestamp.as_mut().unwrap().header = None;
        application.signature.value =
            settings::template::Template::parse("t={timestamp},v1={signature}", &["signature", "timestamp"])
                .unwrap();
        let signed = message(&application)
            .signed(&application, &Key::new("k"))
            .unwrap();
        let altered = signed
            .clone()
            .at(&application, Timestamp::from_second(1_700_000_001).unwrap());
        let value = |message: &Message| {
            let headers = message.headers(&application).unwrap();
            headers["x-webhook-signature"].to_str().unwrap().to_owned()
        };
        let (before, after) = (value(&signed), value(&altered));
        assert!(
            before.starts_with("t=1700000000,v1=") && after.starts_with("t=1700000001,v1="),
            "{after}"
        );
        assert_eq!(
            before.split("v1=").last(),
            after.split("v1=").last(),
            "it is not signed again"
        );
    }

    #[test]
    fn what_is_altered_is_one_thing() {
        let application = application();
        let message = message(&application);
        let (body, nonce) = message.one_byte_off();
        assert_eq!(body.len(), message.body.len());
        assert_eq!(
            body.bytes()
                .zip(message.body.bytes())
                .filter(|(a, b)| a != b)
                .count(),
            1
        );
        assert!(body.contains(&nonce) && nonce != message.nonce);
        let again = message.reserialised().unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert!(again != message.body && value(&again) == value(&message.body));
    }

    #[test]
    fn a_claim_is_a_field_of_the_body_where_that_is_an_object() {
        let application = application();
        let claiming = message(&application).claiming("tenant", "globex").unwrap();
        let body: Value = serde_json::from_str(&claiming.body).unwrap();
        assert_eq!(
            (body["tenant"].as_str(), body["id"].as_str()),
            (Some("globex"), Some(NONCE))
        );
        let text = message(&application).with_body("plain");
        assert!(text.claiming("tenant", "globex").is_none() && text.reserialised().is_none());
    }
}
