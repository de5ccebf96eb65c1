//! What became of webhooks, as a tenant can see it: by a query with its own credentials from inside of its namespace, by the answer at an
//! address, or by its workers' logs alone.

use super::Webhooks;
use super::journal::OWN_STATEMENT;
use crate::agent::{Again, Agent, no_postgresql};
use crate::credentials::Credentials;
use crate::error::HarnessError;
use crate::settings::application::Outcome;
use crate::stage::{CONVERSATIONS, Site};
use futures::future::{join_all, try_join_all};
use http::{HeaderMap, HeaderValue, header};
use probe::protocol::{MAX_STATEMENTS, Rows, Secret, SqlRequest, StatementResult};
use provisioner::TenantId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// By nonce: for each time that a webhook was enhanced, the worker that did it where that is told. Those that were not are left out.
pub type Effects = BTreeMap<String, Vec<Option<String>>>;

/// How long PostgreSQL may take for one conversation, in milliseconds.
const CONVERSATION_MS: u64 = 10_000;
/// So many nonces are asked for in one conversation; beside each statement there are those of the transaction.
const MOST: usize = MAX_STATEMENTS / 2;
const FIRST_PAUSE: Duration = Duration::from_millis(150);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A tenant's eyes, where the outcome is in PostgreSQL.
pub(super) struct Reader {
    session: Result<Session, HarnessError>,
    query: Option<String>,
    remove: Option<String>,
    context: String,
    tenant: TenantId,
    /// The tenant's, of all checks.
    conversations: Arc<Semaphore>,
}

struct Session {
    agent: Arc<Agent>,
    host: String,
    port: u16,
    user: String,
    password: Secret,
    database: String,
}

impl Reader {
    pub(super) fn new(
        site: &Site,
        tenant: &TenantId,
        agent: Result<Arc<Agent>, HarnessError>,
        credentials: Result<Arc<Credentials>, HarnessError>,
    ) -> Self {
        let (query, remove) = match &site.settings.application.outcome {
            Outcome::Sql { query, remove } => (Some(query.clone()), remove.clone()),
            Outcome::Http { .. } | Outcome::Log => (None, None),
        };
        Reader {
            session: session(site, tenant, agent, credentials),
            query,
            remove,
            context: site.settings.postgresql.context.clone(),
            tenant: tenant.clone(),
            conversations: Arc::new(Semaphore::new(CONVERSATIONS)),
        }
    }

    async fn effects(&self, query: &str, nonces: &[String]) -> Result<Effects, HarnessError> {
        let mut effects = Effects::new();
        for nonces in nonces.chunks(MOST) {
            let statements = nonces.iter().map(|nonce| with_literal(query, nonce)).collect();
            let answers = self.transact(statements).await?;
            for (nonce, answer) in nonces.iter().zip(answers) {
                let workers = workers(answer);
                if !workers.is_empty() {
                    effects.insert(nonce.clone(), workers);
                }
            }
        }
        Ok(effects)
    }

    /// Removes what is stored under nonces like this, where the settings say how; answers how many rows that were.
    pub(super) async fn remove(&self, pattern: &str) -> Result<u64, HarnessError> {
        let Some(remove) = &self.remove else {
            return Ok(0);
        };
        let removed = self.transact(vec![with_literal(remove, pattern)]).await?;
        let rows: u64 = removed.iter().map(|removed| removed.affected).sum();
        tracing::debug!(tenant = %self.tenant, rows, "removed what webhooks stored");
        Ok(rows)
    }

    /// These statements in one transaction of the tenant's.
    async fn transact(&self, statements: Vec<String>) -> Result<Vec<Rows>, HarnessError> {
        let Session {
            agent,
            host,
            port,
            user,
            password,
            database,
        } = self.session.as_ref().map_err(Clone::clone)?;
        let context = format!(
            "select set_config('{}', {}, true)",
            self.context,
            literal(self.tenant.as_str())
        );
        let all = ["begin".to_owned(), context]
            .into_iter()
            .chain(statements)
            .chain(["commit".to_owned()]);
        let request = SqlRequest {
            host: host.clone(),
            port: *port,
            user: user.clone(),
            password: password.clone(),
            database: database.clone(),
            timeout_ms: CONVERSATION_MS,
            statements: all
                .map(|statement| format!("{OWN_STATEMENT} {statement}"))
                .collect(),
            hold: None,
        };
        // Nobody closes the semaphore.
        let _permit = self.conversations.acquire().await;
        let said = agent.sql_session(&request, Again::Once).await?;
        let results = said.map_err(|why| no_postgresql(&agent.place, &request, &why))?;
        rows(&request.statements, results, user)
    }
}

/// All rows of a transaction's own statements; an error names the first statement that failed.
fn rows(statements: &[String], results: Vec<StatementResult>, user: &str) -> Result<Vec<Rows>, HarnessError> {
    let mut rows = Vec::new();
    for (statement, result) in statements.iter().zip(results) {
        rows.push(result.map_err(|error| {
            let code = error.sqlstate.unwrap_or_else(|| "no SQLSTATE".to_owned());
            let statement = statement.trim_start_matches(OWN_STATEMENT).trim();
            HarnessError::new(format!(
                "PostgreSQL as {user}: {statement}: {code}: {}",
                error.message
            ))
            .hint("application.outcome.sql in the settings must be what the tenant's own role may say")
        })?);
    }
    let last = rows.len().saturating_sub(1);
    Ok(rows.drain(2.min(last)..last).collect())
}

fn session(
    site: &Site,
    tenant: &TenantId,
    agent: Result<Arc<Agent>, HarnessError>,
    credentials: Result<Arc<Credentials>, HarnessError>,
) -> Result<Session, HarnessError> {
    let settings = &site.settings.postgresql;
    let (services, dns) = {
        let tenant = site.tenant(tenant)?;
        (&tenant.shared_services, &tenant.dns)
    };
    let (service, namespace) = (&services.postgresql, &services.namespace);
    Ok(Session {
        agent: agent?,
        host: format!("{}.{namespace}.svc.{}.", service.service, dns.cluster_domain),
        port: service.port.get(),
        user: settings.user.of(tenant),
        password: credentials?.postgresql.clone()?,
        database: settings.database.clone(),
    })
}

/// A statement with its `$1` as a literal: the simple query protocol has no parameters.
fn with_literal(statement: &str, value: &str) -> String {
    statement.replace("$1", &literal(value))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// For each row its worker; a row whose first column is null is of a webhook that is not enhanced yet.
fn workers(answer: Rows) -> Vec<Option<String>> {
    let first = |row: Vec<Option<String>>| match row.into_iter().next() {
        None => Some(None),
        Some(None) => None,
        Some(worker) => Some(worker),
    };
    answer.rows.into_iter().filter_map(first).collect()
}

/// Keeps what says most of a webhook.
fn most(effects: &mut Effects, (nonce, seen): (String, Vec<Option<String>>)) {
    let known = effects.entry(nonce).or_default();
    if seen.len() > known.len() {
        *known = seen;
    }
}

impl Webhooks {
    /// The same, with as many conversations at once as these of each tenant give permits for.
    #[must_use]
    pub fn taking_turns(mut self, conversations: &HashMap<TenantId, Arc<Semaphore>>) -> Self {
        for (tenant, mailbox) in &mut self.mailboxes {
            if let Some(conversations) = conversations.get(tenant) {
                mailbox.reader.conversations = Arc::clone(conversations);
            }
        }
        self
    }

    /// How the outcome is seen, for people; none where logs alone say it.
    pub fn eyes(&self) -> Option<&'static str> {
        match self.application().outcome {
            Outcome::Sql { .. } => Some("own credentials"),
            Outcome::Http { .. } => Some("own address"),
            Outcome::Log => None,
        }
    }

    /// Which of these webhooks, whosever they are, a tenant sees enhanced.
    ///
    /// # Errors
    /// It cannot look: nothing is known then.
    pub async fn effects(&self, of: &TenantId, nonces: &[String]) -> Result<Effects, HarnessError> {
        if nonces.is_empty() {
            return Ok(Effects::new());
        }
        let effects = self.look_for(of, nonces).await?;
        self.unseen().retain(|nonce| !effects.contains_key(nonce));
        Ok(effects)
    }

    async fn look_for(&self, of: &TenantId, nonces: &[String]) -> Result<Effects, HarnessError> {
        match &self.application().outcome {
            Outcome::Sql { .. } => {
                let reader = &self.mailbox(of)?.reader;
                let query = reader.query.as_deref().unwrap_or_default();
                reader.effects(query, nonces).await
            }
            Outcome::Http { .. } => {
                let looked = nonces.iter().map(|nonce| self.look(of, nonce));
                let found = try_join_all(looked).await?;
                let pairs = nonces.iter().cloned().zip(found);
                Ok(pairs
                    .filter_map(|(nonce, found)| Some((nonce, vec![found?])))
                    .collect())
            }
            Outcome::Log => {
                let logs = self.logs().await;
                let namespace = of.namespace();
                if let Some(gap) = logs.gap([namespace.as_str()]) {
                    return Err(HarnessError::new(gap));
                }
                let mut effects = Effects::new();
                for nonce in nonces {
                    for line in logs.enhanced(nonce).filter(|line| line.namespace == namespace) {
                        effects
                            .entry(nonce.clone())
                            .or_default()
                            .push(Some(line.pod.clone()));
                    }
                }
                Ok(effects)
            }
        }
    }

    /// Whether the answer at a tenant's address shows that this webhook was enhanced, and by whom where it says so.
    async fn look(&self, of: &TenantId, nonce: &str) -> Result<Option<Option<String>>, HarnessError> {
        let application = self.application();
        let (Outcome::Http { host, expect, .. }, Some(url)) =
            (&application.outcome, application.outcome_address(of, nonce))
        else {
            return Ok(None);
        };
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            let host = HeaderValue::from_str(&host.fill(&[("tenant", of.as_str())]));
            let host = host.map_err(|error| HarnessError::during("write header host", &error))?;
            headers.insert(header::HOST, host);
        }
        let body = self.sender.look(&url, headers).await?.unwrap_or_default();
        let found = expect.captures_iter(&body).find(|found| {
            let named = found.name("nonce");
            named.is_none_or(|named| named.as_str() == nonce)
        });
        Ok(found.map(|found| found.name("worker").map(|worker| worker.as_str().to_owned())))
    }

    /// What all tenants together see of these webhooks: for each the most that one of them does. It is waited for until each is seen by
    /// somebody, or the time for it is over. Whose they become is another question.
    ///
    /// # Errors
    /// One of them cannot look, and not all is seen without it.
    pub async fn await_anywhere(
        &self,
        nonces: &[String],
        deadline: Instant,
    ) -> Result<Effects, HarnessError> {
        let mut pause = FIRST_PAUSE;
        if matches!(self.application().outcome, Outcome::Log) {
            pause = LONGEST_PAUSE;
        }
        loop {
            let looked = self.tenants().map(|tenant| self.effects(tenant, nonces));
            let (mut effects, mut blind) = (Effects::new(), None);
            for seen in join_all(looked).await {
                match seen {
                    Ok(seen) => seen.into_iter().for_each(|each| most(&mut effects, each)),
                    Err(error) => blind = Some(error),
                }
            }
            match blind {
                _ if effects.len() >= nonces.len() => return Ok(effects),
                Some(error) => return Err(error),
                None if Instant::now() + pause > deadline => return Ok(effects),
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The same of a tenant's own webhooks, once it sees all of them or its time is over. A look that fails is repeated until then.
    ///
    /// # Errors
    /// The last look failed, as for [`Webhooks::effects`].
    pub async fn await_effects(
        &self,
        of: &TenantId,
        nonces: &[String],
        deadline: Instant,
    ) -> Result<Effects, HarnessError> {
        let (mut effects, mut pause) = (Effects::new(), FIRST_PAUSE);
        if matches!(self.application().outcome, Outcome::Log) {
            pause = LONGEST_PAUSE;
        }
        loop {
            let missing: Vec<String> = nonces
                .iter()
                .filter(|nonce| !effects.contains_key(*nonce))
                .cloned()
                .collect();
            let looked = self.effects(of, &missing).await;
            let looked = looked.map(|seen| effects.extend(seen));
            if effects.len() >= nonces.len() || Instant::now() + pause > deadline {
                return looked.map(|()| effects);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use probe::protocol::SqlError;
    use rstest::rstest;

    fn answer(rows: &[&[Option<&str>]]) -> Rows {
        let row = |row: &&[Option<&str>]| row.iter().map(|cell| cell.map(str::to_owned)).collect();
        Rows {
            rows: rows.iter().map(row).collect(),
            affected: 0,
        }
    }

    #[rstest]
    #[case::none(answer(&[]), vec![])]
    #[case::one(answer(&[&[Some("w-1")]]), vec![Some("w-1".to_owned())])]
    #[case::not_enhanced_yet(answer(&[&[None]]), vec![])]
    #[case::twice(answer(&[&[Some("w-1")], &[Some("w-2")]]), vec![Some("w-1".to_owned()), Some("w-2".to_owned())])]
    #[case::without_columns(answer(&[&[]]), vec![None])]
    fn a_row_is_an_effect(#[case] answer: Rows, #[case] expected: Vec<Option<String>>) {
        assert_eq!(workers(answer), expected);
    }

    #[test]
    fn a_value_is_a_literal_whatever_is_in_it() {
        assert_eq!(
            with_literal("select 1 where id = $1", "it's"),
            "select 1 where id = 'it''s'"
        );
    }

    #[test]
    fn only_the_rows_between_begin_and_commit_are_answers() {
        let statements = ["begin", "context", "q1", "q2", "commit"].map(str::to_owned);
        let results = ["", "", "one", "two", ""]
            .iter()
            .map(|text| Ok(answer(&[&[Some(text)]])))
            .collect();
        let found = rows(&statements, results, "u").unwrap();
        assert_eq!(found, [answer(&[&[Some("one")]]), answer(&[&[Some("two")]])]);
    }

    #[test]
    fn a_statement_that_fails_is_named_with_its_code() {
        let statements =
            ["begin", "context", "select 1", "commit"].map(|text| format!("{OWN_STATEMENT} {text}"));
        let refused = SqlError {
            sqlstate: Some("42501".into()),
            message: "permission denied".into(),
        };
        let results = vec![
            Ok(Rows::default()),
            Ok(Rows::default()),
            Err(refused),
            Ok(Rows::default()),
        ];
        let error = rows(&statements, results, "tenant-a").unwrap_err();
        assert_eq!(
            error.what,
            "PostgreSQL as tenant-a: select 1: 42501: permission denied"
        );
        assert!(error.hint.is_some());
    }
}
