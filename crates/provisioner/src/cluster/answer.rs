//! Refusals as the client understands them. kube reads the body of a refusal and nothing else; but an API server that is asked too much
//! says in a header when it wants to be asked again, beside a line of plain text
//! (<https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>), and a proxy in between answers in words of its own. This
//! makes a Status of each, with what the headers say in it.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::{Body, DynBody};
use kube::core::Status;
use kube::core::response::StatusDetails;
use serde_json::Value;
use tower::BoxError;

type Answer = Box<DynBody>;

/// The answer as it is, or the Status that a refusal amounts to.
pub(super) async fn completed(answer: Response<Answer>) -> Result<Response<Answer>, BoxError> {
    let code = answer.status();
    if !(code.is_client_error() || code.is_server_error()) {
        return Ok(answer);
    }
    let (mut head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
    let status = refusal(code, &head.headers, &body);
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Body::from(serde_json::to_vec(&status).unwrap_or_default());
    Ok(Response::from_parts(head, Box::new(body.map_err(BoxError::from))))
}

fn refusal(code: StatusCode, headers: &HeaderMap, body: &Bytes) -> Status {
    let document = serde_json::from_slice::<Value>(body).ok();
    let status = document
        .filter(|document| document["kind"] == "Status")
        .and_then(|document| serde_json::from_value(document).ok());
    let mut status: Status = status.unwrap_or_else(|| Status::failure(&words(body), ""));
    status.code = code.as_u16();
    if let Some(seconds) = retry_after(headers) {
        let details = status.details.get_or_insert_with(none);
        if details.retry_after_seconds == 0 {
            details.retry_after_seconds = seconds;
        }
    }
    status
}

fn none() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

/// What a body says that is no Status: a line for people, or nothing where it is a page or a document.
fn words(body: &Bytes) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let line = !text.starts_with(['<', '{']) && text.lines().count() == 1;
    if line { text.to_owned() } else { String::new() }
}

/// In seconds, as API servers write it.
fn retry_after(headers: &HeaderMap) -> Option<u32> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn said(code: u16, retry_after: Option<&str>, body: &str) -> (u16, String, u32) {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        }
        let code = StatusCode::from_u16(code).unwrap();
        let status = refusal(code, &headers, &Bytes::copy_from_slice(body.as_bytes()));
        let pause = status.details.map_or(0, |details| details.retry_after_seconds);
        (status.code, status.message, pause)
    }

    #[rstest]
    #[case::api_server_is_asked_too_much(
        429,
        Some("7"),
        "Too many requests, please try again later.\n",
        "Too many requests, please try again later.",
        7
    )]
    #[case::page_of_a_proxy(502, None, "<html>\n<h1>502 Bad Gateway</h1>\n</html>", "", 0)]
    #[case::document_of_a_proxy(503, Some("2"), r#"{"error": "no upstream"}"#, "", 2)]
    #[case::a_date_is_passed_over(503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), "busy", "busy", 0)]
    #[case::nothing(500, None, "", "", 0)]
    fn what_is_no_status_becomes_one(
        #[case] code: u16,
        #[case] after: Option<&str>,
        #[case] body: &str,
        #[case] message: &str,
        #[case] pause: u32,
    ) {
        assert_eq!(said(code, after, body), (code, message.to_owned(), pause));
    }

    #[test]
    fn a_status_keeps_what_it_says() {
        let status = json!({"kind": "Status", "message": "storage is slow", "code": 500, "details": {"retryAfterSeconds": 3}});
        assert_eq!(
            said(500, Some("9"), &status.to_string()),
            (500, "storage is slow".to_owned(), 3)
        );
        let bare = json!({"kind": "Status", "message": "slow"}).to_string();
        assert_eq!(said(429, Some("9"), &bare), (429, "slow".to_owned(), 9));
    }
}
