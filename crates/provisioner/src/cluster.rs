//! Connects to a cluster: which kubeconfig, which context, and the corrections that a client needs. Never takes a cluster that
//! was not meant: no in-cluster account, no debugging overrides from the environment.

mod answer;
mod proxy;

use kube::client::{AuthError, ClientBuilder};
use kube::config::{
    AuthInfo, ExecInteractiveMode, KubeConfigOptions, Kubeconfig, KubeconfigError, NamedContext,
};
use kube::{Client, Config};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tower::util::AndThenLayer;

const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// Where to look for the cluster.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// This file and no other; without it the list in `KUBECONFIG` (missing files are skipped), then `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// This context; without it the current one.
    pub context: Option<String>,
}

/// A client and what it is connected to.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// What the client was made of; never print it, it holds credentials.
    pub config: Config,
    /// The context's name.
    pub context: String,
    /// The name of the context's cluster.
    pub cluster: String,
    /// The API server's URL.
    pub server: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// None of the files exists.
    #[error("find kubeconfig: there is no file {}", looked_for.join(", nor "))]
    NoKubeconfig {
        /// The files that were looked for.
        looked_for: Vec<String>,
    },
    /// A file cannot be read, or is no kubeconfig.
    #[error("read kubeconfig {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what the file says: it holds credentials.
        problem: String,
    },
    /// There is no such context, or none was named and none is current.
    #[error("{}; {}", no_context(wanted.as_deref()), contexts(existing))]
    NoContext {
        /// The context asked for; none asked for the current one.
        wanted: Option<String>,
        /// The contexts that exist.
        existing: Vec<String>,
    },
    /// The context cannot be used.
    #[error("use context {context}: {problem}")]
    Unusable {
        /// The context.
        context: String,
        /// What is wrong, without credentials.
        problem: String,
    },
}

fn no_context(wanted: Option<&str>) -> String {
    match wanted {
        Some(name) => format!("use context {name}: it does not exist"),
        None => "use the current context: none is set".to_owned(),
    }
}

fn contexts(existing: &[String]) -> String {
    match existing {
        [] => "the kubeconfig has no contexts".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    }
}

impl ConnectError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoKubeconfig { .. } => "name the file with --kubeconfig or in KUBECONFIG".to_owned(),
            Self::Unreadable { .. } => {
                "mend the file, or name another with --kubeconfig or in KUBECONFIG".to_owned()
            }
            Self::NoContext { .. } => "name one of these".to_owned(),
            Self::Unusable { problem, .. } if problem.contains("NO_PROXY") => {
                "write NO_PROXY without empty entries, as in localhost,127.0.0.1".to_owned()
            }
            Self::Unusable { .. } => "mend the context in the kubeconfig".to_owned(),
        })
    }
}

/// Reads the kubeconfig and makes a client. Does not talk to the cluster, unless its credentials come from a plugin.
///
/// # Errors
/// No kubeconfig, no such context, or one that makes no client; names what was looked for and which contexts exist.
pub async fn connect(options: &ConnectOptions) -> Result<Connection, ConnectError> {
    let kubeconfig = read(options)?;
    let wanted = options
        .context
        .clone()
        .or(kubeconfig.current_context.clone().filter(|name| !name.is_empty()));
    let found = wanted
        .as_ref()
        .and_then(|wanted| kubeconfig.contexts.iter().find(|context| context.name == *wanted));
    let Some(NamedContext {
        name,
        context: Some(context),
        ..
    }) = found.cloned()
    else {
        let existing = kubeconfig
            .contexts
            .iter()
            .map(|context| context.name.clone())
            .collect();
        return Err(ConnectError::NoContext { wanted, existing });
    };
    let unusable = |problem| ConnectError::Unusable {
        context: name.clone(),
        problem,
    };
    let selection = KubeConfigOptions {
        context: Some(name.clone()),
        cluster: None,
        user: None,
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &selection).await;
    let config = corrected(config.map_err(|error| unusable(explain(&error)))?);
    let client = client(config.clone()).map_err(|error| unusable(explain_client(&error)))?;
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    Ok(Connection {
        client,
        config,
        context: name,
        cluster: context.cluster,
        server,
    })
}

/// A client for the same server with this bearer token and no other credentials.
///
/// # Errors
/// The client cannot be made of the configuration.
pub fn client_with_token(base: &Config, token: &str) -> Result<Client, ConnectError> {
    let mut config = base.clone();
    config.auth_info = AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    };
    // A header of the kubeconfig could carry credentials as well.
    config.headers = Vec::new();
    client(config).map_err(|error| ConnectError::Unusable {
        context: base.cluster_url.to_string(),
        problem: explain_client(&error),
    })
}

/// A client that reads all that a refusal says.
fn client(config: Config) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(config)?;
    Ok(builder.with_layer(&AndThenLayer::new(answer::completed)).build())
}

fn read(options: &ConnectOptions) -> Result<Kubeconfig, ConnectError> {
    if let Some(path) = &options.kubeconfig {
        return read_file(path);
    }
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let mut paths: Vec<PathBuf> = std::env::split_paths(&listed)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if paths.is_empty() {
        paths.extend(std::env::home_dir().map(|home| home.join(".kube").join("config")));
    }
    let existing: Vec<&PathBuf> = paths.iter().filter(|path| path.exists()).collect();
    if existing.is_empty() {
        let looked_for = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(ConnectError::NoKubeconfig { looked_for });
    }
    existing
        .into_iter()
        .try_fold(Kubeconfig::default(), |merged, path| {
            let unreadable = |error| ConnectError::Unreadable {
                path: path.clone(),
                problem: explain(&error),
            };
            merged.merge(read_file(path)?).map_err(unreadable)
        })
}

fn read_file(path: &Path) -> Result<Kubeconfig, ConnectError> {
    Kubeconfig::read_from(path).map_err(|error| ConnectError::Unreadable {
        path: path.to_owned(),
        problem: explain(&error),
    })
}

fn corrected(mut config: Config) -> Config {
    // Refusals of admission and of rate limits must be seen at once; who wants to ask again does so with a deadline.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_WITHIN);
    if let Some(url) = config.proxy_url.take() {
        let host = config.cluster_url.host().unwrap_or_default();
        let direct = proxy::is_direct(host, config.cluster_url.port_u16(), &proxy::exceptions());
        // The scheme may be left out of HTTPS_PROXY, and HTTP is what is meant then.
        let url = if url.scheme().is_some() {
            Some(url)
        } else {
            format!("http://{url}").parse().ok()
        };
        config.proxy_url = url.filter(|_| !direct);
    }
    if let Some(exec) = &mut config.auth_info.exec
        && !std::io::stdin().is_terminal()
    {
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    config
}

/// The error without lines of the file, which may hold credentials.
fn explain(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("it is no kubeconfig (line {}, column {})", at.line(), at.column()),
            None => "it is no kubeconfig".to_owned(),
        },
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        KubeconfigError::ParseNoProxy(error) => format!("NO_PROXY cannot be used: {error}"),
        other => other.to_string(),
    }
}

fn explain_client(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => explain_credentials(error),
        other => other.to_string(),
    }
}

/// The error without what a credential plugin printed, which may be credentials.
pub(crate) fn explain_credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecRun { cmd, out } => {
            format!("credential plugin {cmd:?} failed with {}", out.status)
        }
        AuthError::AuthExecParse(_) => "credential plugin did not print an ExecCredential".to_owned(),
        other => other.to_string(),
    }
}
