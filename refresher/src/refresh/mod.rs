//! Keeps credentials alive: decides when to renew one, asks the token endpoint, and knows what its answer means.
//!
//! [`schedule`] is pure. [`engine`] drives it over two seams: the [`ledger`] (the store) and the token [`endpoint`]. The
//! wire is `oauth`'s.
//!
//! # When
//!
//! - A renewal is due 5 minutes ahead of the credential's end, or a tenth of its life if that is less, and up to 10 %
//!   of that lead earlier. The end is the access token's `exp`, else `expires_in`, within a year. It is a hint and is
//!   never verified. A token without an end is renewed after 8 days.
//! - A renewal that only the credential's end asks for comes no sooner than `floor_seconds` after the one before, also
//!   where a platform grants credentials that live for less.
//! - An `unauthorized` report of the current generation asks for a renewal at once. Renewals that such reports ask for
//!   in a row come later each time: after 0, 1, 2, 4 seconds and so on, up to 1 hour. Ten minutes without one beyond
//!   that end the row. A report is one caller's word and ends no login: a session, and a login whose refresh token may be
//!   spent, end once the platform has refused them to us as well (`prober`).
//! - Waits are monotonic; ends are of the wall clock. At least every 5 s the two are compared. A clock that jumps by
//!   weeks costs at most one renewal an account. A new token that seems to have ended already shows that the clocks
//!   disagree; its announced life counts then.
//! - "Not now" (no connection, or any status but those below) backs off from 1 second to 1 hour. `Retry-After` is
//!   honoured up to 1 hour. `invalid_grant`, 401 with `invalid_client`, and the profile's codes and statuses end the
//!   login: the account becomes `needs_login`.
//! - Any other refusal may be that of a filter before the endpoint, so it is asked again for ever, hourly at most. How
//!   refreshes fail and since when is kept with the account until one goes well. Once they have failed for an hour, or
//!   for a minute near the credential's end, a person is told to look (`failing`).
//!
//! # Laws of single-use refresh tokens
//!
//! - Who calls the token endpoint holds a *claim* on the account's generation: a row on the database's clock that
//!   lapses after 60 seconds. The call is cut off before that. So one call is in flight for an account, across processes.
//! - An *intent* is durable before the call leaves. The new tokens are durable, as the next generation, before anyone
//!   hears of them. They pass all other writes that wait in their process.
//! - A call whose answer was lost is repeated once, with the same token, after the store has been read again: within
//!   `grace_seconds`, or else when the access token is of no more use. After a second lost answer the account keeps its
//!   access token to its end and then needs a login. A process that dies in a call leaves its intent, and its successor
//!   follows the same rule.
//! - A crash loses the login only between the answer and the end of the commit that saves it.
//! - Accounts of a database that was restored from an older copy, whose tokens were replaced since, keep their access
//!   token to its end. Their refresh token is spent and is not sent.

pub mod endpoint;
pub mod engine;
pub mod ledger;
mod reports;
pub mod schedule;
mod step;
