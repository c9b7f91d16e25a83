//! Many rows in few statements.

use sqlx::QueryBuilder;
use sqlx::query_builder::Separated;

use super::Result;
use super::sqlite::{Connection, Database};

/// The rows of a statement, the largest size that fits first. There are few sizes, so that a connection prepares few
/// statements and has them ready; 64 rows of requests are 1,536 parameters, of the 32,766 that SQLite allows and the
/// 65,535 of PostgreSQL.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// An INSERT whose rows are yet to come.
pub(super) struct Rows {
    /// `INSERT INTO table (columns) `.
    pub(super) insert: &'static str,
    /// ` ON CONFLICT …`, or nothing.
    pub(super) conflict: &'static str,
}

impl Rows {
    /// Inserts these rows; `bind` gives the parameters of one, in the order of the columns.
    pub(super) async fn add<'r, T>(
        &self,
        connection: &mut Connection,
        rows: &'r [T],
        bind: impl Fn(Separated<'_, Database, &'static str>, &'r T),
    ) -> Result<()> {
        let mut rest = rows;
        for size in SIZES {
            while let Some((some, others)) = rest.split_at_checked(size) {
                let mut query = QueryBuilder::<Database>::new(self.insert);
                query.push_values(some, &bind).push(self.conflict);
                query.build().execute(&mut *connection).await?;
                rest = others;
            }
        }
        Ok(())
    }
}
