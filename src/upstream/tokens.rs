//! The table in which tokens are kept and shared, and what was refused with them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::config::Identity;

use super::{
    Error,
    client::Client,
    credentials::Refusal,
    token::{Grant, NoToken, RealmPauses, Token, TokenFlight, start},
};

/// How long a login that was refused is not tried again: a server may err once. It doubles with each
/// refusal in a row.
const FIRST_DENIAL: Duration = Duration::from_secs(10);
/// The most that it becomes. Docker Hub locks an account after ten such tries in five minutes; these
/// are seven.
const LAST_DENIAL: Duration = Duration::from_secs(60);
/// Tokens kept before those that are of no use are dropped.
const MAX_ENTRIES: usize = 1024;

/// The tokens of one endpoint, and the requests for them that are under way: one per grant,
/// however many wait for it. There is one grant per repository, found by the scope that Larder
/// itself would ask for; the grant may hold further scopes that the registry named.
#[derive(Default)]
pub(super) struct Tokens {
    entries: Mutex<HashMap<String, Entry>>,
    pauses: Arc<RealmPauses>,
}

struct Entry {
    grant: Grant,
    flight: TokenFlight,
    /// How long a refusal is believed.
    denial: Duration,
}

impl Tokens {
    /// What was last asked for `scope`.
    pub(super) fn grant(&self, scope: &str) -> Option<Grant> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(scope).map(|entry| entry.grant.clone())
    }

    /// A token for `grant`: a kept one, or the one that is on its way, or a new one. A login that was
    /// just refused is refused again without being tried.
    pub(super) async fn get(
        &self,
        scope: &str,
        grant: &Grant,
        client: &Arc<Client>,
    ) -> Result<Token, NoToken> {
        self.flight(scope, grant, client)?.await
    }

    /// Never hands out `refused` again.
    pub(super) fn forget(&self, scope: &str, refused: &Token) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = |entry: &Entry| match entry.flight.peek() {
            Some(Ok(token)) => token == refused,
            Some(Err(_)) | None => false,
        };
        if entries.get(scope).is_some_and(is_refused) {
            entries.remove(scope);
        }
    }

    fn flight(
        &self,
        scope: &str,
        grant: &Grant,
        client: &Arc<Client>,
    ) -> Result<TokenFlight, Error> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(scope)
            && entry.grant == *grant
            && entry.is_of_use()
        {
            return Ok(entry.flight.clone());
        }
        if let Some(refused) = refused_login(&entries, grant) {
            return Ok(refused);
        }
        self.respect_pause(grant)?;
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| entry.is_of_use());
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        let flight = start(Arc::clone(client), grant.clone(), Arc::clone(&self.pauses));
        let denial = next_denial(&entries, scope, grant);
        let entry = Entry { grant: grant.clone(), flight: flight.clone(), denial };
        entries.insert(scope.to_owned(), entry);
        Ok(flight)
    }

    fn respect_pause(&self, grant: &Grant) -> Result<(), Error> {
        match self.pauses.left(&grant.asker()) {
            Some(left) => Err(Error::HeldBack(format!(
                "{} limits our requests for tokens for another {} s",
                grant.realm.authority(),
                left.as_secs()
            ))),
            None => Ok(()),
        }
    }
}

impl Entry {
    fn is_of_use(&self) -> bool {
        match self.flight.peek() {
            None => true,
            Some(Ok(token)) => token.is_fresh(),
            Some(Err(NoToken::Denied(denial))) => {
                let age = denial.received.elapsed();
                self.grant.identity != Identity::Anonymous && age < self.denial
            }
            Some(Err(NoToken::Failed(_))) => false,
        }
    }

    fn has_token(&self) -> bool {
        self.is_of_use() && matches!(self.flight.peek(), Some(Ok(_)))
    }

    /// Whether the token server does not believe who asks, whatever is asked for.
    fn has_refused_login(&self) -> bool {
        self.is_of_use() && self.refusal() == Some(Refusal::Unauthorized)
    }

    fn refusal(&self) -> Option<Refusal> {
        match self.flight.peek() {
            Some(Err(NoToken::Denied(denial))) => Some(denial.refusal),
            Some(Ok(_) | Err(NoToken::Failed(_))) | None => None,
        }
    }
}

/// How long the next refusal of this login is believed. Where it is good for something, only refusals
/// for this very scope are in a row.
fn next_denial(entries: &HashMap<String, Entry>, scope: &str, grant: &Grant) -> Duration {
    let same_login = || entries.iter().filter(|(_, entry)| entry.grant.is_like(grant));
    let is_good = same_login().any(|(_, entry)| entry.has_token());
    let in_a_row = same_login().filter(|(known, _)| !is_good || *known == scope);
    let refused = in_a_row.filter(|(_, entry)| entry.refusal().is_some());
    let last = refused.map(|(_, entry)| entry.denial).max();
    last.map_or(FIRST_DENIAL, |last| last.saturating_mul(2).min(LAST_DENIAL))
}

/// The refusal of the same login for another scope, unless it was good for a third.
fn refused_login(entries: &HashMap<String, Entry>, grant: &Grant) -> Option<TokenFlight> {
    let same_login = || entries.values().filter(|entry| entry.grant.is_like(grant));
    if same_login().any(Entry::has_token) {
        return None;
    }
    same_login().find(|entry| entry.has_refused_login()).map(|entry| entry.flight.clone())
}

#[cfg(test)]
mod tests {
    use futures_util::future::FutureExt as _;
    use tokio::time::Instant;

    use super::*;
    use crate::upstream::{health::launch, token::Denial};

    const MINUTE: Duration = Duration::from_secs(60);

    fn grant() -> Grant {
        Grant {
            identity: Identity::Anonymous,
            realm: "https://h/t".parse().unwrap(),
            service: None,
            scopes: ["a".to_owned()].into(),
        }
    }

    fn login() -> Grant {
        let identity = Identity::new("anna", "x".to_owned());
        Grant { identity, ..grant() }
    }

    /// What became of asking so many seconds ago, where a refusal is believed for so many.
    async fn entry(
        grant: Grant,
        outcome: impl FnOnce(Instant) -> Result<Token, NoToken>,
        age: u64,
        denial: u64,
    ) -> Entry {
        let outcome = outcome(Instant::now().checked_sub(Duration::from_secs(age)).unwrap());
        let flight = launch(async move { outcome }.boxed());
        let _ = flight.clone().await;
        Entry { grant, flight, denial: Duration::from_secs(denial) }
    }

    fn denied(received: Instant) -> Result<Token, NoToken> {
        let refusal = Refusal::Unauthorized;
        Err(NoToken::Denied(Denial { refusal, message: String::new(), received }))
    }

    fn given(received: Instant) -> Result<Token, NoToken> {
        Ok(Token { value: "token".to_owned(), received, lifetime: MINUTE })
    }

    #[tokio::test]
    async fn a_refused_login_is_tried_again_after_a_while() {
        assert!(entry(login(), denied, 19, 20).await.is_of_use());
        assert!(!entry(login(), denied, 21, 20).await.is_of_use());
        let anonymous = grant();
        assert!(!entry(anonymous, denied, 0, 20).await.is_of_use());
    }

    #[tokio::test]
    async fn a_login_is_tried_less_often_the_more_often_it_was_refused() {
        let mut entries = HashMap::new();
        let mut seconds = Vec::new();
        for scope in ["a", "b", "a", "b"] {
            let next = next_denial(&entries, scope, &login()).as_secs();
            entries.insert(scope.to_owned(), entry(login(), denied, 0, next).await);
            seconds.push(next);
        }
        assert_eq!(seconds, [10, 20, 40, 60], "whatever it was tried for");

        let stranger = Grant { identity: Identity::new("bert", "x".to_owned()), ..login() };
        assert_eq!(next_denial(&entries, "a", &stranger), FIRST_DENIAL);
        entries.insert("c".to_owned(), entry(login(), given, 0, 10).await);
        assert_eq!(next_denial(&entries, "d", &login()), FIRST_DENIAL, "it is good for something");
        assert_eq!(next_denial(&entries, "b", &login()), LAST_DENIAL, "but not for this");
    }
}
