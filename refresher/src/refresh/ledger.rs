//! The refresh engine's view of the store.
//!
//! The ledger is where processes meet: a *claim* is the right to renew one generation of one account's credential, and an
//! *intent* is the durable note that a call that spends a refresh token is about to leave. Both are columns of the
//! account's row and run on the database's clock, so two refreshers on one store cannot both call, and a refresher that
//! starts after a crash knows that a token may be spent. Where a call spends nothing ([`Renewal`]) there are no intents.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::clock::UnixMillis;
use crate::credential::{Credential, CredentialKind, Renewal};
use crate::egress::Proxy;
use crate::failing::Failing;
use crate::id::AccountId;

/// An account that the scheduler looks at: its credential ends by itself and it is not `needs_login`. Disabled accounts,
/// those past their end and those that are cooling down are among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The account's id.
    pub account: AccountId,
    /// The kind of its credential.
    pub kind: CredentialKind,
    /// Counts its credentials.
    pub generation: u64,
    /// The time at which the current tokens were stored.
    pub issued_at: UnixMillis,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// Not to be tried before, after a failure.
    pub retry_at: Option<UnixMillis>,
}

/// The right to refresh one generation of one account, until it lapses.
#[derive(Clone)]
pub struct Claim {
    /// The account's id.
    pub account: AccountId,
    /// Its name, for the log.
    pub name: String,
    /// Its platform's id.
    pub platform: String,
    /// The generation that this claim is for.
    pub generation: u64,
    /// The base URL of the account's own, for which the credential was sealed. The next one goes to the same place,
    /// whatever the database says by then.
    pub base_url: Option<String>,
    /// The proxy of the account's own, by which the call leaves.
    pub proxy: Option<Proxy>,
    /// The mark of this claim, at least 80 random bits: a later one on the same row has another.
    pub token: String,
    /// The credential of that generation.
    pub credential: Credential,
    /// The way in which it is renewed.
    pub renewal: Renewal,
    /// The end of the access token, where that is known.
    pub credential_expires_at: Option<UnixMillis>,
    /// The end of the login for good, where that is known.
    pub login_ends_at: Option<UnixMillis>,
    /// Failures in a row, zero after a commit.
    pub failures: u32,
    /// The failures in a row, and their beginning; none after a commit.
    pub failing: Option<Failing>,
    /// The number of calls that went out with this generation's refresh token and stayed unanswered, before this claim.
    pub unanswered: u32,
    /// The time when the first of those went out.
    pub first_unanswered_at: Option<UnixMillis>,
}

impl fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Claim")
            .field("account", &self.account)
            .field("generation", &self.generation)
            .field("unanswered", &self.unanswered)
            .finish_non_exhaustive()
    }
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The claim is ours.
    Ours(Box<Claim>),
    /// Another process, or an earlier life of this one, holds it.
    Busy,
    /// The account has another generation by now.
    Moved,
    /// The account is gone, is `needs_login`, or has nothing to refresh with.
    NotRefreshable,
}

/// The facts of an account at its platform, by name.
pub type Vars = BTreeMap<String, String>;

/// Finds how a platform's credentials of a kind are renewed.
pub type RenewalOf<'a> = &'a (dyn Fn(&str, CredentialKind) -> Renewal + Sync);

/// The state of an account after a failed refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Not before.
    pub at: UnixMillis,
    /// Failures in a row, this one included.
    pub failures: u32,
    /// The failures in a row, and their beginning.
    pub failing: Option<Failing>,
    /// Calls that stayed unanswered, to be stored in place of what [`Ledger::intend`] counted.
    pub unanswered: u32,
}

/// The store, as the engine sees it. Each method is one transaction, durable when it returns. A login that replaces an
/// account's tokens counts as a new generation with no failures and no intents, and leaves a claim to its holder.
pub trait Ledger: Send + Sync + 'static {
    /// The reason why the store failed; never names a secret.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Notes when the login of `generation` ends for good, as its platform told it. It is announced, and decides nothing.
    fn note_login_end(
        &self,
        account: &AccountId,
        generation: u64,
        end: Option<UnixMillis>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Notes what the token endpoint told of the owner of an account of `generation`, in a refresh. Only an account of
    /// which no `identity` is known learns that, as one whose file named nobody.
    fn note_owner(
        &self,
        account: &AccountId,
        generation: u64,
        identity: &str,
        told: &Vars,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Every account that may need a refresh.
    fn entries(&self) -> impl Future<Output = Result<Vec<Entry>, Self::Error>> + Send;

    /// Takes the claim on `generation` of `account` for `life`, on the database's clock, if nobody holds one that has
    /// not lapsed and the generation is current. If the renewal is [`Renewal::SingleUse`] and no call with this
    /// generation is [unanswered](Claim::unanswered) there is nothing to consider before the first, so the claim is the
    /// intent of it too: stored as one unanswered call since `now`. Any other renewal leaves no intent.
    fn claim(
        &self,
        account: &AccountId,
        generation: u64,
        now: UnixMillis,
        life: Duration,
        renewal_of: RenewalOf<'_>,
    ) -> impl Future<Output = Result<Claimed, Self::Error>> + Send;

    /// Notes that another call is about to leave at `now`: one more `unanswered`; `first_unanswered_at` is `now` if it was
    /// the first. Extends the claim to `life` from now. False, and nothing noted, if the claim is no longer ours or
    /// the generation has moved.
    fn intend(
        &self,
        claim: &Claim,
        now: UnixMillis,
        life: Duration,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Stores the new credential as generation + 1, issued at `now`; clears failures and intents, and the claim if it is
    /// ours; makes a `needs_login` account active; moves the snapshot's revision. False, and nothing stored, only if the
    /// generation is no longer the claim's: a claim that merely lapsed must not cost the account its rotated token.
    fn commit(
        &self,
        claim: &Claim,
        credential: &Credential,
        credential_expires_at: Option<UnixMillis>,
        now: UnixMillis,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;

    /// Releases the claim and notes when to try again. Nothing happens if the claim is no longer ours.
    fn retry_later(
        &self,
        claim: &Claim,
        retry: Retry,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends the login: the account becomes `needs_login` with `reason`, the claim is released, the snapshot's revision
    /// moves. False, and nothing changed, if the claim is no longer ours or the generation has moved.
    fn needs_login(
        &self,
        claim: &Claim,
        reason: &str,
    ) -> impl Future<Output = Result<bool, Self::Error>> + Send;
}
