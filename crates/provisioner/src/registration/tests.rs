use super::*;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rstest::rstest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

fn refused(code: &str) -> RegistrationError {
    RegistrationError::Postgresql {
        what: "register role tenant-acme in PostgreSQL".to_owned(),
        code: code.to_owned(),
        message: "no".to_owned(),
        tried_for: None,
    }
}

#[rstest]
#[case::group(RegistrationError::NoGroupRole { role: "tenant-acme".to_owned() }, "enhancer migrate")]
#[case::no_database(refused("3D000"), "enhancer migrate")]
#[case::password(refused("28P01"), "Secret")]
#[case::unreachable(RegistrationError::Unreachable { service: "Redis", namespace: "database".to_owned(), problem: "x".to_owned(), tried_for: None }, "kubectl get pods --namespace database")]
#[case::no_secret(RegistrationError::Secret { name: "redis-admin".to_owned(), namespace: "database".to_owned(), problem: "it does not exist".to_owned(), of_tenant: false }, "adminSecret")]
#[case::no_own_secret(RegistrationError::Secret { name: CREDENTIALS.to_owned(), namespace: "ai-agents-acme".to_owned(), problem: "it does not exist".to_owned(), of_tenant: true }, "provisioner apply")]
fn errors_say_what_to_do(#[case] error: RegistrationError, #[case] remedy: &str) {
    let hint = error.hint().unwrap();
    assert!(hint.contains(remedy), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_and_told_and_what_does_not_is_final() {
    let told = Mutex::new(0);
    let progress = |step: &Step| {
        if matches!(step, Step::Retrying { .. }) {
            *told.lock().unwrap() += 1;
        }
    };
    let patience = Patience::new(Duration::from_secs(5), &progress);
    let mut answers = vec![
        Err(refused("28P01")),
        Err(refused("57P03")),
        Err(refused("08006")),
    ];
    let result: Result<(), _> = patience
        .attempt("try", || std::future::ready(answers.pop().unwrap_or(Ok(()))))
        .await;
    assert!(
        matches!(&result, Err(RegistrationError::Postgresql { code, tried_for: None, .. }) if code == "28P01"),
        "{result:?}"
    );
    assert_eq!(*told.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_in_time_says_how_long_it_was_tried() {
    let patience = Patience::new(Duration::from_secs(5), &Silent);
    let error = patience
        .attempt("try", || std::future::ready(Err::<(), _>(refused("57P03"))))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(": given up after 4."), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_with_what_was_seen_before_it() {
    let patience = Patience::new(Duration::from_secs(5), &Silent);
    let mut seen = Some(refused("57P03"));
    let error = patience
        .attempt("try", || {
            let seen = seen.take();
            async move {
                match seen {
                    Some(error) => Err::<(), _>(error),
                    None => std::future::pending().await,
                }
            }
        })
        .await
        .unwrap_err();
    assert!(error.to_string().contains("57P03"), "{error}");
}

#[test]
fn a_state_says_what_there_is() {
    let state = State {
        role: true,
        rows: 3,
        ..State::default()
    };
    assert_eq!(state.to_string(), "a role in PostgreSQL, 3 row(s)");
    assert_eq!(State::default().to_string(), "nothing");
    assert!(State::default().is_empty() && !state.is_empty());
}

const NAMESPACE: &str = "/api/v1/namespaces/database";

/// A client of an API server that has these objects, refuses what is null and knows nothing else, and the paths that it was asked for.
async fn scripted(objects: BTreeMap<String, Value>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let (objects, asked) = (Arc::new(objects), Arc::new(Mutex::new(Vec::new())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let paths = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (objects, paths) = (Arc::clone(&objects), Arc::clone(&paths));
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                let refused = |code: u16, reason: &str| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"});
                let (code, body) = match objects.get(&path) {
                    Some(Value::Null) => (403, refused(403, "Forbidden")),
                    Some(object) => (200, object.clone()),
                    None => (404, refused(404, "NotFound")),
                };
                paths.lock().unwrap().push(path);
                let response = Response::builder().status(code);
                let body = Full::new(Bytes::from(body.to_string()));
                std::future::ready(Ok::<_, Infallible>(response.body(body).unwrap()))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    (Client::try_from(config).unwrap(), asked)
}

fn slices() -> (String, Value) {
    let path = "/apis/discovery.k8s.io/v1/namespaces/database/endpointslices";
    let list = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {}, "items": []});
    (path.to_owned(), list)
}

fn secret(name: &str, data: &Value) -> (String, Value) {
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": data});
    (format!("{NAMESPACE}/secrets/{name}"), secret)
}

fn admin(name: &str) -> (String, Value) {
    secret(name, &json!({"username": "YQ==", "password": "YQ=="}))
}

fn namespace() -> (String, Value) {
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "database"}});
    (NAMESPACE.to_owned(), namespace)
}

/// The Service of Redis.
fn redis_service() -> (String, Value) {
    let service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "redis", "namespace": "database"}});
    (format!("{NAMESPACE}/services/redis"), service)
}

/// No right to get the Service of Redis.
fn kept_back() -> (String, Value) {
    (format!("{NAMESPACE}/services/redis"), Value::Null)
}

/// What a removal and a look came to, and the paths that were asked for.
async fn purged_and_seen(
    objects: Vec<(String, Value)>,
) -> ([Result<State, RegistrationError>; 2], Vec<String>) {
    let (client, asked) = scripted(objects.into_iter().collect()).await;
    let (shared, id) = (SharedServices::default(), "acme".parse().unwrap());
    let within = Duration::from_secs(5);
    let purged = purge(&client, &shared, &id, &Silent, within).await;
    let seen = state(&client, &shared, &id, &Silent, within).await;
    let asked = asked.lock().unwrap().clone();
    ([purged, seen], asked)
}

#[rstest]
#[case::nothing(vec![])]
#[case::no_secret(vec![namespace(), slices()])]
#[case::no_namespace(vec![slices(), admin("postgresql-admin"), admin("redis-admin")])]
#[case::no_service(vec![namespace(), slices(), admin("postgresql-admin"), admin("redis-admin")])]
#[tokio::test]
async fn services_that_do_not_exist_hold_nothing(#[case] objects: Vec<(String, Value)>) {
    let (results, _) = purged_and_seen(objects).await;
    for result in results {
        assert_eq!(result.unwrap(), State::default());
    }
}

#[rstest]
#[case::without_secret(vec![namespace(), slices(), kept_back(), admin("redis-admin")], "get Service redis in database")]
#[case::without_service(vec![namespace(), slices(), kept_back(), admin("postgresql-admin"), admin("redis-admin")], "get Service redis in database")]
#[case::service_without_secret(vec![namespace(), slices(), redis_service()], "read Secret redis-admin in database: it does not exist")]
#[case::unusable_secret(vec![secret("redis-admin", &json!({"username": "YQ=="}))], "it has no key password")]
#[case::secret_kept_back(vec![(format!("{NAMESPACE}/secrets/redis-admin"), Value::Null)], "get Secret redis-admin in database")]
#[tokio::test]
async fn the_absence_of_one_service_hides_no_failure_of_the_other(
    #[case] objects: Vec<(String, Value)>,
    #[case] expected: &str,
) {
    let (results, _) = purged_and_seen(objects).await;
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn whatever_becomes_of_one_service_the_other_is_asked() {
    let unusable = secret("postgresql-admin", &json!({}));
    let (results, asked) = purged_and_seen(vec![unusable, namespace(), slices(), admin("redis-admin")]).await;
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("it has no key username"), "{error}");
    }
    let looked = asked
        .iter()
        .filter(|path| path.ends_with("/services/redis"))
        .count();
    assert_eq!(looked, 2, "{asked:?}");
}
