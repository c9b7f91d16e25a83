//! Key rotation: a new key seals from one transaction on, in every process; then every record is sealed anew, a few in
//! each transaction; then keys that no record uses are forgotten.
//!
//! The new key is in the vault before anything is sealed with it, and an old one leaves it after the last record that
//! it sealed. So whoever dies at any point leaves records that open, and the next rotation goes on from there.

use std::collections::BTreeSet;
use std::time::Duration;

use super::accounts::vars_binding;
use super::batch::origin_binding;
use super::keys::KEY_CHECK;
use super::sqlite::empty_log;
use super::{Change, Error, NotRotated, Result, Store, egress, key_id, sql};
use crate::keys::KeySource;
use crate::keys::seal::{self, Binding, FIRST_FORMAT, KeyId};
use crate::state::StateDir;

/// Records sealed anew in one transaction: other writers wait for no more than that.
const BATCH: i64 = 64;
/// The tries to empty the log, and the pause between two.
const EMPTYING_TRIES: usize = 20;
const EMPTYING_PAUSE: Duration = Duration::from_millis(100);

sql::statements! {
    SEALING_KEY = "SELECT sealing_key FROM meta";
    /// A sealed record names its key in its bytes 2 to 5.
    USED_KEYS = "SELECT sealing_key FROM meta UNION SELECT substr(key_check, 2, 4) FROM meta \
                 UNION SELECT substr(credential, 2, 4) FROM accounts UNION SELECT substr(vars, 2, 4) FROM accounts \
                 UNION SELECT substr(origin, 2, 4) FROM accounts WHERE origin IS NOT NULL \
                 UNION SELECT substr(proxy, 2, 4) FROM egress UNION SELECT substr(seal, 2, 4) FROM platforms \
                 UNION SELECT substr(seal, 2, 4) FROM doors";
    COUNT_KEY = "INSERT INTO sealing_keys (id, seals) VALUES ($1, 0) ON CONFLICT DO NOTHING";
    SWITCH = "UPDATE meta SET sealing_key = $1";
    SET_KEY_CHECK = "UPDATE meta SET key_check = $1";
    SEALED_OTHERWISE = "SELECT id, platform, kind, generation, base_url, credential, vars, origin, proxy FROM accounts \
                        LEFT JOIN egress ON egress.account = id WHERE id > $1 \
                        AND (substr(credential, 2, 4) <> (SELECT sealing_key FROM meta) \
                        OR substr(vars, 2, 4) <> (SELECT sealing_key FROM meta) \
                        OR substr(origin, 2, 4) <> (SELECT sealing_key FROM meta) \
                        OR substr(proxy, 2, 4) <> (SELECT sealing_key FROM meta)) ORDER BY id LIMIT $2";
    /// Accounts had no proxies of their own then.
    EVERYTHING = "SELECT id, platform, kind, generation, base_url, credential, vars, origin, NULL AS proxy FROM accounts \
                  ORDER BY id";
    SEAL_ANEW = "UPDATE accounts SET credential = $1, vars = $2, origin = $4 WHERE id = $3";
    SEAL_PROXY_ANEW = "UPDATE egress SET proxy = $1 WHERE account = $2";
}

/// The sealed parts of an account, and what they are bound to.
#[derive(sqlx::FromRow)]
struct SealedRow {
    id: String,
    platform: String,
    kind: String,
    #[sqlx(try_from = "i64")]
    generation: u64,
    base_url: Option<String>,
    credential: Vec<u8>,
    vars: Vec<u8>,
    origin: Option<Vec<u8>>,
    proxy: Option<Vec<u8>>,
}

impl SealedRow {
    fn binding(&self) -> Binding<'_> {
        Binding {
            record: &self.id,
            generation: self.generation,
            platform: &self.platform,
            kind: &self.kind,
            base_url: self.base_url.as_deref(),
        }
    }

    fn vars_binding(&self) -> Binding<'_> {
        vars_binding(&self.id, &self.platform)
    }

    fn origin_binding(&self) -> Binding<'_> {
        origin_binding(&self.id, &self.platform)
    }

    fn proxy_binding(&self) -> Binding<'_> {
        egress::binding(&self.id, &self.platform)
    }
}

/// The keys that are of no more use after a rotation, where the operator keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// The keys in `LATCHKEY_RETIRED_KEYS`.
    Variables,
    /// All but the first at this place.
    Given(String),
}

/// The outcome of a step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is a new key; it seals nothing yet.
    Made(KeyId),
    /// The key is there already: from a rotation that was cut short, or from the environment.
    Resumed(KeyId),
    /// The key seals now, in every process.
    Switched,
    /// As many records were sealed anew.
    Sealed(u64),
    /// As many keys that nothing uses were forgotten.
    Forgot(usize),
    /// There is nothing left to do.
    Done,
}

/// A rotation, step by step. One at a time: hold [`StateDir::lock_rotation`].
#[derive(Debug)]
pub struct Rotation<'s> {
    store: &'s Store,
    state: &'s StateDir,
    progress: Progress,
    unreadable: u64,
}

#[derive(Debug)]
enum Progress {
    Start,
    Switch(KeyId),
    /// The last record that was looked at.
    Seal(String),
    Forget,
    Done,
}

impl Store {
    /// A rotation that has not begun.
    pub fn rotation<'s>(&'s self, state: &'s StateDir) -> Rotation<'s> {
        Rotation {
            store: self,
            state,
            progress: Progress::Start,
            unreadable: 0,
        }
    }

    /// The ids, one a line, of keys that stay as they are as long as this process runs: those from the environment.
    pub fn fixed_keys(&self) -> String {
        match self.keys.source() {
            KeySource::Variables { .. } => {
                let ids = self.keys.held();
                ids.ids().map(|id| format!("{id}\n")).collect()
            }
            KeySource::Given(_) | KeySource::Vault(_) => String::new(),
        }
    }

    /// The keys that the operator may take away after a rotation; none where the vault forgets them by itself.
    pub fn retired_keys(&self) -> Option<Retired> {
        match self.keys.source() {
            KeySource::Variables { .. } => Some(Retired::Variables),
            KeySource::Given(place) => Some(Retired::Given(place.place())),
            KeySource::Vault(_) => None,
        }
    }

    /// The first of the keys, if another one still seals.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn waiting_key(&self) -> Result<Option<KeyId>> {
        let first = self.keys.held().first();
        Ok((first != self.sealing_key().await?).then_some(first))
    }

    /// The key that seals.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn sealing_key(&self) -> Result<KeyId> {
        let id: Vec<u8> = sqlx::query_scalar(SEALING_KEY)
            .fetch_one(&self.pool)
            .await?;
        key_id(&id)
    }

    /// The keys that anything is sealed with.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn used_keys(&self) -> Result<BTreeSet<KeyId>> {
        let ids: Vec<Vec<u8>> = sqlx::query_scalar(USED_KEYS).fetch_all(&self.pool).await?;
        // An id that is none was changed by somebody; no key opens its record.
        Ok(ids.iter().filter_map(|id| KeyId::from_bytes(id)).collect())
    }
}

impl Rotation<'_> {
    /// Takes the next step; what was done is on disk then.
    ///
    /// # Errors
    /// If there is no key to change over to, or the vault or the database fails. Every record can still be opened.
    pub async fn step(&mut self) -> Result<Step> {
        match &self.progress {
            Progress::Start => self.choose_key().await,
            Progress::Switch(key) => {
                let key = *key;
                self.unreadable += self.store.switch_to(key).await?;
                self.progress = Progress::Seal(String::new());
                Ok(Step::Switched)
            }
            Progress::Seal(after) => {
                let (sealed, unreadable, last) = self.store.seal_anew(after).await?;
                self.unreadable += unreadable;
                match last {
                    Some(last) => self.progress = Progress::Seal(last),
                    None => self.progress = Progress::Forget,
                }
                Ok(Step::Sealed(sealed))
            }
            Progress::Forget => {
                let _lock = self.state.lock_setup()?;
                let used = self.store.used_keys().await?;
                let forgotten = self.store.keys.source().keep(&used)?;
                self.store.keys.reload()?;
                self.empty_log().await?;
                self.progress = Progress::Done;
                Ok(Step::Forgot(forgotten))
            }
            Progress::Done if self.unreadable > 0 => {
                Err(NotRotated::Unreadable(self.unreadable).into())
            }
            Progress::Done => Ok(Step::Done),
        }
    }

    /// Empties the log, which holds records as old keys sealed them. A reader or a checkpoint holds that up, for as long
    /// as a page of SQL takes.
    async fn empty_log(&self) -> Result<()> {
        for _ in 0..EMPTYING_TRIES {
            if empty_log(&self.store.pool).await? {
                return Ok(());
            }
            tokio::time::sleep(EMPTYING_PAUSE).await;
        }
        tracing::warn!(
            "the database's log is in use, and holds records as old keys sealed them until it is written anew"
        );
        Ok(())
    }

    /// The first of the keys, if it does not seal everything already, or else a new one.
    async fn choose_key(&mut self) -> Result<Step> {
        let _lock = self.state.lock_setup()?;
        let keys = &self.store.keys;
        let first = keys.reload()?.first();
        let served = self.state.served_keys();
        let resumes = match keys.source() {
            // A new key seals anew what an interrupted rotation left as well.
            KeySource::Vault(_) => first != self.store.sealing_key().await?,
            KeySource::Variables { .. } | KeySource::Given(_) => {
                let mut used = self.store.used_keys().await?.into_iter();
                used.any(|key| key != first)
            }
        };
        let step = if resumes {
            if served.is_some_and(|served| !served.contains(&first.to_string())) {
                return Err(NotRotated::NotServed(first).into());
            }
            self.progress = Progress::Switch(first);
            Step::Resumed(first)
        } else {
            if served.is_some() {
                return Err(NotRotated::FixedKeys.into());
            }
            let made = keys.source().add()?.ok_or_else(|| match keys.source() {
                KeySource::Given(place) => NotRotated::GivenKeys(place.place()),
                _ => NotRotated::FixedKeys,
            })?;
            keys.reload()?;
            self.progress = Progress::Switch(made);
            Step::Made(made)
        };
        Ok(step)
    }
}

impl Change<'_> {
    /// Stores what was sealed anew of an account.
    async fn seal_anew(
        &mut self,
        id: &str,
        credential: &[u8],
        vars: &[u8],
        origin: Option<&[u8]>,
    ) -> Result<()> {
        sqlx::query(SEAL_ANEW)
            .bind(credential)
            .bind(vars)
            .bind(id)
            .bind(origin)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Seals an account's proxy anew, if it has one.
    async fn seal_proxy_anew(&mut self, row: &SealedRow, proxy: Option<&[u8]>) -> Result<()> {
        let Some(plaintext) = proxy else {
            return Ok(());
        };
        let sealed = self.seal_bytes(row.proxy_binding(), plaintext).await?;
        sqlx::query(SEAL_PROXY_ANEW)
            .bind(sealed)
            .bind(&row.id)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Seals the check value with the key that the database names, in today's form.
    async fn seal_key_check(&mut self) -> Result<()> {
        let sealed = self.seal_bytes(KEY_CHECK.1, KEY_CHECK.0).await?;
        sqlx::query(SET_KEY_CHECK)
            .bind(sealed)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}

impl Store {
    /// Seals what earlier releases did not seal as this one does, in one transaction with the check value: their
    /// credentials without platform and kind, and accounts' vars, which they left in the clear. The check value says from
    /// then on that there is no such record: one that comes later is not opened. So where the key of a record is not at
    /// hand, nothing changes: it may be given tomorrow.
    pub(super) async fn seal_everything(&self) -> Result<()> {
        let mut change = self.change().await?;
        let rows: Vec<SealedRow> = sqlx::query_as(EVERYTHING).fetch_all(change.sql()).await?;
        for row in rows {
            let credential = match row.credential.first() {
                Some(&FIRST_FORMAT) => self.keys.open_first_format(row.binding(), &row.credential),
                _ => self.keys.open(row.binding(), &row.credential),
            };
            let credential = match credential {
                Ok(plaintext) => change.seal_bytes(row.binding(), &plaintext).await?,
                Err(error) => {
                    let key = KeyId::of(&row.credential);
                    if let Some(key) = key.filter(|key| !self.keys.held().holds(*key)) {
                        return Err(Error::Seal {
                            record: row.id,
                            source: seal::Error::NotAtHand(key),
                        });
                    }
                    tracing::error!(%error, "a record keeps its old form, and is not opened any more");
                    row.credential.clone()
                }
            };
            let vars = change.seal_bytes(row.vars_binding(), &row.vars).await?;
            // No release that sealed in the first form kept anything of files.
            change
                .seal_anew(&row.id, &credential, &vars, row.origin.as_deref())
                .await?;
        }
        change.seal_key_check().await?;
        change.commit().await?;
        // The log and the parts of the file that it will overwrite hold them in the clear until then.
        empty_log(&self.pool).await?;
        Ok(())
    }

    /// From here on `key` seals. What is published is few records, and sealed anew at once; returns how many of them could
    /// not be opened.
    async fn switch_to(&self, key: KeyId) -> Result<u64> {
        let mut change = self.change().await?;
        sqlx::query(COUNT_KEY)
            .bind(key.as_bytes())
            .execute(change.sql())
            .await?;
        sqlx::query(SWITCH)
            .bind(key.as_bytes())
            .execute(change.sql())
            .await?;
        change.seal_key_check().await?;
        let unreadable = change.seal_published_anew().await?;
        change.commit().await?;
        Ok(unreadable)
    }

    /// Seals the next records after `after` anew: how many, how many could not be opened, and the last of them, if there
    /// was any.
    async fn seal_anew(&self, after: &str) -> Result<(u64, u64, Option<String>)> {
        let mut change = self.change().await?;
        let rows: Vec<SealedRow> = sqlx::query_as(SEALED_OTHERWISE)
            .bind(after)
            .bind(BATCH)
            .fetch_all(change.sql())
            .await?;
        let (mut sealed, mut unreadable, mut last) = (0, 0, None);
        for row in rows {
            let credential = self.keys.open(row.binding(), &row.credential);
            let vars = self.keys.open(row.vars_binding(), &row.vars);
            let origin = row.origin.as_ref();
            let origin = origin.map(|sealed| self.keys.open(row.origin_binding(), sealed));
            let proxy = row.proxy.as_ref();
            let proxy = proxy.map(|sealed| self.keys.open(row.proxy_binding(), sealed));
            let opened = credential.and_then(|credential| {
                Ok((credential, vars?, origin.transpose()?, proxy.transpose()?))
            });
            match opened {
                Ok((credential, vars, origin, proxy)) => {
                    let credential = change.seal_bytes(row.binding(), &credential).await?;
                    let vars = change.seal_bytes(row.vars_binding(), &vars).await?;
                    let origin = match origin {
                        Some(origin) => {
                            Some(change.seal_bytes(row.origin_binding(), &origin).await?)
                        }
                        None => None,
                    };
                    change
                        .seal_anew(&row.id, &credential, &vars, origin.as_deref())
                        .await?;
                    let proxy = proxy.as_deref().map(Vec::as_slice);
                    change.seal_proxy_anew(&row, proxy).await?;
                    sealed += 1;
                }
                Err(error) => {
                    tracing::error!(%error, "a record keeps its key");
                    unreadable += 1;
                }
            }
            last = Some(row.id);
        }
        change.commit().await?;
        Ok((sealed, unreadable, last))
    }
}
