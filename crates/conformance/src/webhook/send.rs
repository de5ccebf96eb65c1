//! Sends webhooks from outside of the cluster, each on a connection of its own, and says what an answer means. Whether that is a promise
//! kept is left to the checks.

use super::message::Message;
use crate::error::{HarnessError, chain};
use crate::settings::Application;
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use std::fmt;
use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take, the connection included.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a connection that was not made is tried again: nothing was delivered over it.
const AGAIN: usize = 2;
const PAUSE: Duration = Duration::from_millis(300);
/// The most that is read of the answer at an outcome's address, in bytes.
const LONGEST_BODY: usize = 1 << 20;

/// What an answer to a webhook means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The application took it: 2xx.
    Accepted(u16),
    /// The application refused it: 4xx.
    Refused(u16),
    /// Nothing can be said: no answer, one by the ingress (404 where no route or no such tenant is), too many requests, an error of the
    /// server's, or a redirection.
    Unavailable(String),
}

impl Answer {
    /// What a status code means. A 404 is what an ingress answers that has no route, 408, 421, 425 and 429 ask to try again.
    pub fn of(status: StatusCode) -> Self {
        let code = status.as_u16();
        match code {
            200..=299 => Answer::Accepted(code),
            404 => Answer::Unavailable("answered 404: nobody serves that address".to_owned()),
            408 | 421 | 425 | 429 => Answer::Unavailable(format!("answered {code}, which asks to try again")),
            400..=499 => Answer::Refused(code),
            300..=399 => Answer::Unavailable(format!("answered {code}: redirections are not followed")),
            _ => Answer::Unavailable(format!("answered {code}, an error of the server's")),
        }
    }

    /// Whether it was refused for who sent it: 401 and 403 say so; 400, 413, 415 and 422 speak of something else.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Answer::Refused(401 | 403))
    }

    /// Whether it was taken.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Answer::Accepted(_))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Accepted(code) | Answer::Refused(code) => write!(out, "answered {code}"),
            Answer::Unavailable(why) => write!(out, "{why}"),
        }
    }
}

/// A client of applications.
pub(super) struct Sender {
    client: reqwest::Client,
    slots: Semaphore,
}

impl Sender {
    /// One that has so many requests under way at most.
    ///
    /// # Errors
    /// The client cannot be made.
    pub(super) fn new(at_once: usize) -> Result<Self, HarnessError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("ai-agents-conformance/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| HarnessError::during("make a client for webhooks", &error))?;
        Ok(Sender {
            client,
            slots: Semaphore::new(at_once),
        })
    }

    /// Sends a webhook, once; only a connection that could not be made is tried again.
    pub(super) async fn send(&self, application: &Application, message: &Message) -> Answer {
        let headers = match message.headers(application) {
            Ok(headers) => headers,
            Err(error) => return Answer::Unavailable(error.what),
        };
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await;
        let mut tries = 0;
        loop {
            let request = self.client.post(application.address(&message.to));
            let request = request.headers(headers.clone()).body(message.body.clone());
            match request.send().await {
                Ok(response) => return Answer::of(response.status()),
                Err(error) if error.is_connect() && tries < AGAIN => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Answer::Unavailable(format!("no answer: {}", chain(&error))),
            }
        }
    }

    /// The body of a 200 at an address; none where that is not there (404).
    ///
    /// # Errors
    /// Any other answer, or none.
    pub(super) async fn look(&self, url: &str, headers: HeaderMap) -> Result<Option<String>, HarnessError> {
        let doing = format!("GET {url}");
        let _slot = self.slots.acquire().await;
        let failed = |error: reqwest::Error| HarnessError::during(&doing, &error);
        let mut response = self
            .client
            .get(url)
            .headers(headers)
            .send()
            .await
            .map_err(failed)?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => {
                let code = status.as_u16();
                return Err(HarnessError::new(format!(
                    "{doing}: expected 200 or 404, got {code}"
                )));
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_BODY {
                return Err(HarnessError::new(format!(
                    "{doing}: more than {LONGEST_BODY} bytes came"
                )));
            }
        }
        Ok(Some(String::from_utf8_lossy(&body).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::ok(200, "accepted", false)]
    #[case::accepted(202, "accepted", false)]
    #[case::no_content(204, "accepted", false)]
    #[case::not_authenticated(401, "refused", true)]
    #[case::forbidden(403, "refused", true)]
    #[case::malformed(400, "refused", false)]
    #[case::conflict(409, "refused", false)]
    #[case::too_large(413, "refused", false)]
    #[case::media_type(415, "refused", false)]
    #[case::unprocessable(422, "refused", false)]
    #[case::no_route(404, "unavailable", false)]
    #[case::too_slow(408, "unavailable", false)]
    #[case::too_many(429, "unavailable", false)]
    #[case::redirected(302, "unavailable", false)]
    #[case::server_error(500, "unavailable", false)]
    #[case::bad_gateway(502, "unavailable", false)]
    #[case::overloaded(503, "unavailable", false)]
    #[case::gateway_timeout(504, "unavailable", false)]
    fn an_answer_means_one_thing(#[case] code: u16, #[case] word: &str, #[case] unauthorized: bool) {
        let answer = Answer::of(StatusCode::from_u16(code).unwrap());
        let seen = match answer {
            Answer::Accepted(_) => "accepted",
            Answer::Refused(_) => "refused",
            Answer::Unavailable(_) => "unavailable",
        };
        assert_eq!((seen, answer.is_unauthorized()), (word, unauthorized));
        assert!(answer.to_string().contains(&code.to_string()));
    }
}
