//! The platforms that there are, and what their profiles say. None of it needs a state: a profile is tried before the first
//! account.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{App, Error, Options, Result};
use crate::config::Config;
use crate::fault::Fault;
use crate::platform::Catalog;
use crate::platform::catalog::{self, Checked};
use crate::state::StateDir;

/// The platforms that the running daemon knows, which it reads when it starts; none where none runs.
///
/// # Errors
/// If the store fails.
pub async fn served(app: &App) -> Result<Option<BTreeSet<String>>> {
    Ok(match app.state.is_served() {
        true => Some(app.store.published_platforms().await?),
        false => None,
    })
}

/// The folder of the operator's profiles, and the terms that were acknowledged.
#[derive(Debug)]
pub struct Setting {
    folder: Option<PathBuf>,
    acknowledged: BTreeSet<String>,
}

impl Setting {
    /// Reads `config.toml`, if there is one. `variable` reads the environment.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn locate(
        options: Options,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Setting> {
        let path = StateDir::locate(options.state_dir, |name| variable(name).map(PathBuf::from))?;
        let config = Config::load(&path.join(StateDir::CONFIG))?;
        let acknowledged = config.acknowledged_terms.iter().cloned();
        Ok(Setting {
            folder: config.platforms_dir,
            acknowledged: acknowledged.chain(options.acknowledged_terms).collect(),
        })
    }

    /// Returns the setting of an open application.
    pub fn of(app: &App) -> Setting {
        let acknowledged = app.catalog.all_usable();
        Setting {
            folder: app.config.platforms_dir.clone(),
            acknowledged: acknowledged.map(|profile| profile.id.clone()).collect(),
        }
    }

    /// Every platform.
    ///
    /// # Errors
    /// Naming the file and the line of a profile that does not fit.
    pub fn catalog(&self) -> Result<Catalog> {
        Ok(Catalog::load(
            self.folder.as_deref(),
            self.acknowledged.clone(),
        )?)
    }

    /// Checks a file as if it were in the operator's folder.
    ///
    /// # Errors
    /// Naming the file and the line of what does not fit.
    pub fn check(&self, file: &Path) -> Result<Checked> {
        let checked = Catalog::check(self.folder.as_deref(), file);
        checked.map_err(|error| match error {
            catalog::Error::File(error) => Error::of_handed_file(error),
            unfit @ (catalog::Error::Syntax { .. } | catalog::Error::Invalid { .. }) => {
                Error::new(Fault::Invalid, unfit)
            }
            error => error.into(),
        })
    }
}
