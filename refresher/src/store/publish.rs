//! What the daemon says of platforms and doors at its start: the records that Envoys read of them.

use latchkey::snapshot::{Doors, Record};

use super::sql::{self, json_text};
use super::{Change, Result, Store, corrupt};
use crate::platform::Publication;

sql::statements! {
    PUBLISHED_DOORS = "SELECT record FROM doors WHERE id = $1";
    PUBLISH_DOORS = "INSERT INTO doors (id, record, revision) VALUES ($1, $2, $3) \
                     ON CONFLICT (id) DO UPDATE SET record = excluded.record, revision = excluded.revision";
    PLATFORMS = "SELECT id, record, authority, limits FROM platforms";
    PUBLISH_PLATFORM = "INSERT INTO platforms (id, record, authority, limits, revision) VALUES ($1, $2, $3, $4, $5) \
                        ON CONFLICT (id) DO UPDATE SET record = excluded.record, authority = excluded.authority, \
                        limits = excluded.limits, revision = excluded.revision";
    WITHDRAW_PLATFORM = "DELETE FROM platforms WHERE id = $1";
    DIG_UP_PLATFORM = "DELETE FROM tombstones WHERE kind = 'platform' AND id = $1";
    ACCOUNTS_OF = "SELECT id FROM accounts WHERE platform = $1";
    TOUCH_ACCOUNT = "UPDATE accounts SET revision = $1 WHERE id = $2";
}

impl Store {
    /// Publishes exactly these platforms. One that did not change keeps its revision. Accounts take a revision with their
    /// platform, whose authority, variables and limits are in their records, and appear and vanish with it.
    ///
    /// # Errors
    /// If the database fails or a record is longer than a page.
    pub async fn publish_platforms(&self, platforms: &[Publication]) -> Result<()> {
        let mut change = self.change().await?;
        let published: Vec<(String, String, String, String)> =
            sqlx::query_as(PLATFORMS).fetch_all(change.sql()).await?;
        let wanted: Vec<(String, String, String, String)> = platforms
            .iter()
            .map(|platform| {
                let line = Record::Platform(platform.record.clone()).to_line();
                let line = line.map_err(|error| corrupt("platforms.record", error.to_string()))?;
                Ok((
                    platform.record.id.to_string(),
                    line,
                    platform.authority.as_str().to_owned(),
                    json_text(&platform.limits),
                ))
            })
            .collect::<Result<_>>()?;
        for (id, ..) in published
            .iter()
            .filter(|(id, ..)| !wanted.iter().any(|(wanted, ..)| wanted == id))
        {
            sqlx::query(WITHDRAW_PLATFORM)
                .bind(id)
                .execute(change.sql())
                .await?;
            change.bury("platform", id).await?;
            touch_accounts_of(&mut change, id).await?;
        }
        for platform in wanted
            .iter()
            .filter(|platform| !published.contains(platform))
        {
            let (id, record, authority, limits) = platform;
            let revision = change.next_revision().await?;
            sqlx::query(PUBLISH_PLATFORM)
                .bind(id)
                .bind(record)
                .bind(authority)
                .bind(limits)
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
        let mut change = self.change().await?;
        let published: Option<String> = sqlx::query_scalar(PUBLISHED_DOORS)
            .bind(doors.id.as_str())
            .fetch_optional(change.sql())
            .await?;
        if published.as_ref() == Some(&line) {
            return Ok(());
        }
        let revision = change.next_revision().await?;
        sqlx::query(PUBLISH_DOORS)
            .bind(doors.id.as_str())
            .bind(line)
            .bind(revision)
            .execute(change.sql())
            .await?;
        change.commit().await
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
