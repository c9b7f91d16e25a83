//! The daemon's word on platforms and doors at its start: the records that Envoys read of them.
//!
//! Each row is sealed: it decides to which host, on which path and in which header a credential goes, and that is not for
//! whoever can write the database to say. Nothing of it is secret. The seal holds what stands in the row, and a row that
//! says something else is not used.

use std::collections::BTreeSet;

use latchkey::snapshot::{Doors, Record};

use super::sql::{self, json_text};
use super::sqlite::Connection;
use super::{Change, Error, Result, Store, corrupt};
use crate::keys::seal::Binding;
use crate::platform::Publication;

sql::statements! {
    ALL_DOORS = "SELECT id, record, seal FROM doors";
    DOORS = "SELECT id, record, seal FROM doors WHERE id = $1";
    PUBLISH_DOORS = "INSERT INTO doors (id, record, seal, revision) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (id) DO UPDATE SET record = excluded.record, seal = excluded.seal, \
                     revision = excluded.revision";
    SEAL_DOORS = "UPDATE doors SET seal = $1 WHERE id = $2";
    PLATFORMS = "SELECT id, record, authority, limits, seal FROM platforms";
    PUBLISHED_PLATFORMS = "SELECT id FROM platforms";
    PLATFORM = "SELECT id, record, authority, limits, seal FROM platforms WHERE id = $1";
    PUBLISH_PLATFORM = "INSERT INTO platforms (id, record, authority, limits, seal, revision) \
                        VALUES ($1, $2, $3, $4, $5, $6) \
                        ON CONFLICT (id) DO UPDATE SET record = excluded.record, authority = excluded.authority, \
                        limits = excluded.limits, seal = excluded.seal, revision = excluded.revision";
    SEAL_PLATFORM = "UPDATE platforms SET seal = $1 WHERE id = $2";
    WITHDRAW_PLATFORM = "DELETE FROM platforms WHERE id = $1";
    DIG_UP_PLATFORM = "DELETE FROM tombstones WHERE kind = 'platform' AND id = $1";
    ACCOUNTS_OF = "SELECT id FROM accounts WHERE platform = $1";
    TOUCH_ACCOUNT = "UPDATE accounts SET revision = $1 WHERE id = $2";
}

/// A row of `platforms`.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct PlatformRow {
    id: String,
    /// The record that Envoy gets.
    pub record: String,
    /// The authority of the platform's accounts that have no base URL of their own.
    pub authority: String,
    /// The limits of its accounts that have no others, JSON.
    pub limits: String,
    seal: Vec<u8>,
}

/// A row of `doors`.
#[derive(Debug, sqlx::FromRow)]
struct DoorsRow {
    id: String,
    record: String,
    seal: Vec<u8>,
}

/// The contents of a row, of which its seal is made.
#[derive(Debug, PartialEq, Eq)]
struct Published<'a> {
    kind: &'static str,
    id: &'a str,
    texts: [&'a str; 3],
}

impl PlatformRow {
    fn published(&self) -> Published<'_> {
        Published {
            kind: "published platform",
            id: &self.id,
            texts: [&self.record, &self.authority, &self.limits],
        }
    }
}

impl DoorsRow {
    fn published(&self) -> Published<'_> {
        Published {
            kind: "published doors",
            id: &self.id,
            texts: [&self.record, "", ""],
        }
    }
}

impl Published<'_> {
    fn binding(&self) -> Binding<'_> {
        Binding {
            record: self.id,
            generation: 0,
            platform: "",
            kind: self.kind,
            base_url: None,
        }
    }

    fn plaintext(&self) -> Vec<u8> {
        json_text(&self.texts).into_bytes()
    }
}

impl Store {
    /// The platforms that the daemon published at its last start.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn published_platforms(&self) -> Result<BTreeSet<String>> {
        let ids: Vec<String> = sqlx::query_scalar(PUBLISHED_PLATFORMS)
            .fetch_all(&self.pool)
            .await?;
        Ok(ids.into_iter().collect())
    }

    /// Publishes exactly these platforms. One that did not change keeps its revision. Accounts take a revision with their
    /// platform, whose authority, variables and limits are in their records, and appear and vanish with it.
    ///
    /// # Errors
    /// If the database fails or a record is longer than a page.
    pub async fn publish_platforms(&self, platforms: &[Publication]) -> Result<()> {
        let mut change = self.change().await?;
        let published: Vec<PlatformRow> = sqlx::query_as(PLATFORMS).fetch_all(change.sql()).await?;
        let wanted: Vec<PlatformRow> = platforms
            .iter()
            .map(|platform| {
                let line = Record::Platform(platform.record.clone()).to_line();
                let line = line.map_err(|error| corrupt("platforms.record", error.to_string()))?;
                Ok(PlatformRow {
                    id: platform.record.id.to_string(),
                    record: line,
                    authority: platform.authority.as_str().to_owned(),
                    limits: json_text(&platform.limits),
                    seal: Vec::new(),
                })
            })
            .collect::<Result<_>>()?;
        for PlatformRow { id, .. } in published
            .iter()
            .filter(|row| !wanted.iter().any(|wanted| wanted.id == row.id))
        {
            sqlx::query(WITHDRAW_PLATFORM)
                .bind(id)
                .execute(change.sql())
                .await?;
            change.bury("platform", id).await?;
            touch_accounts_of(&mut change, id).await?;
        }
        for platform in &wanted {
            let says_it = |row: &&PlatformRow| row.published() == platform.published();
            let stands = published.iter().find(says_it);
            if stands.is_some_and(|row| self.require_platform(row).is_ok()) {
                continue;
            }
            let PlatformRow {
                id,
                record,
                authority,
                limits,
                ..
            } = platform;
            let seal = change.seal_published(&platform.published()).await?;
            let revision = change.next_revision().await?;
            sqlx::query(PUBLISH_PLATFORM)
                .bind(id)
                .bind(record)
                .bind(authority)
                .bind(limits)
                .bind(seal)
                .bind(revision)
                .execute(change.sql())
                .await?;
            sqlx::query(DIG_UP_PLATFORM)
                .bind(id)
                .execute(change.sql())
                .await?;
            touch_accounts_of(&mut change, id).await?;
        }
        change.commit().await
    }

    /// Publishes these doors. Where they did not change, they keep their revision.
    ///
    /// # Errors
    /// If the database fails or the record is longer than a page.
    pub async fn publish_doors(&self, doors: &Doors) -> Result<()> {
        let line = Record::Doors(doors.clone()).to_line();
        let line = line.map_err(|error| corrupt("doors.record", error.to_string()))?;
        let wanted = DoorsRow {
            id: doors.id.to_string(),
            record: line,
            seal: Vec::new(),
        };
        let mut change = self.change().await?;
        let published: Option<DoorsRow> = sqlx::query_as(DOORS)
            .bind(&wanted.id)
            .fetch_optional(change.sql())
            .await?;
        let stands = published.filter(|row| row.published() == wanted.published());
        if stands.is_some_and(|row| self.require_sealed(&row.published(), &row.seal).is_ok()) {
            return Ok(());
        }
        let seal = change.seal_published(&wanted.published()).await?;
        let revision = change.next_revision().await?;
        sqlx::query(PUBLISH_DOORS)
            .bind(&wanted.id)
            .bind(&wanted.record)
            .bind(seal)
            .bind(revision)
            .execute(change.sql())
            .await?;
        change.commit().await
    }

    /// The record of a platform as it was published.
    pub(super) async fn published_platform(
        &self,
        connection: &mut Connection,
        id: &str,
    ) -> Result<String> {
        let row: PlatformRow = sqlx::query_as(PLATFORM)
            .bind(id)
            .fetch_one(connection)
            .await?;
        self.require_platform(&row)?;
        Ok(row.record)
    }

    /// The record of doors as they were published.
    pub(super) async fn published_doors(
        &self,
        connection: &mut Connection,
        id: &str,
    ) -> Result<String> {
        let row: DoorsRow = sqlx::query_as(DOORS).bind(id).fetch_one(connection).await?;
        self.require_sealed(&row.published(), &row.seal)?;
        Ok(row.record)
    }

    /// Refuses a platform that something else has written.
    ///
    /// # Errors
    /// [`Error::NotPublished`], or if the keys cannot be had.
    pub(super) fn require_platform(&self, row: &PlatformRow) -> Result<()> {
        self.require_sealed(&row.published(), &row.seal)
    }

    fn require_sealed(&self, published: &Published<'_>, seal: &[u8]) -> Result<()> {
        match self.keys.open(published.binding(), seal) {
            Ok(text) if *text == published.plaintext() => Ok(()),
            Ok(_) | Err(Error::Seal { .. }) => Err(Error::NotPublished),
            Err(error) => Err(error),
        }
    }
}

impl Change<'_> {
    async fn seal_published(&mut self, published: &Published<'_>) -> Result<Vec<u8>> {
        let plaintext = published.plaintext();
        self.seal_bytes(published.binding(), &plaintext).await
    }

    /// Seals all that is published with the key that the database names. What something else has written keeps its seal;
    /// returns how many did.
    pub(super) async fn seal_published_anew(&mut self) -> Result<u64> {
        let platforms: Vec<PlatformRow> = sqlx::query_as(PLATFORMS).fetch_all(self.sql()).await?;
        let doors: Vec<DoorsRow> = sqlx::query_as(ALL_DOORS).fetch_all(self.sql()).await?;
        let mut kept = 0;
        for row in &platforms {
            kept += self
                .seal_row_anew(SEAL_PLATFORM, &row.published(), &row.seal)
                .await?;
        }
        for row in &doors {
            kept += self
                .seal_row_anew(SEAL_DOORS, &row.published(), &row.seal)
                .await?;
        }
        Ok(kept)
    }

    async fn seal_row_anew(
        &mut self,
        update: &'static str,
        published: &Published<'_>,
        seal: &[u8],
    ) -> Result<u64> {
        // Of an earlier release: no key is needed for it.
        if seal.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.store.require_sealed(published, seal) {
            tracing::error!(kind = published.kind, id = published.id, %error, "a record keeps its key");
            return Ok(1);
        }
        let sealed = self.seal_published(published).await?;
        sqlx::query(update)
            .bind(sealed)
            .bind(published.id)
            .execute(self.sql())
            .await?;
        Ok(0)
    }
}

async fn touch_accounts_of(change: &mut Change<'_>, platform: &str) -> Result<()> {
    let accounts: Vec<String> = sqlx::query_scalar(ACCOUNTS_OF)
        .bind(platform)
        .fetch_all(change.sql())
        .await?;
    for id in accounts {
        let revision = change.next_revision().await?;
        sqlx::query(TOUCH_ACCOUNT)
            .bind(revision)
            .bind(id)
            .execute(change.sql())
            .await?;
    }
    Ok(())
}
