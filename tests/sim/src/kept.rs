//! Keeps in a file what the platform knows about its users, so that it knows them after a restart.

use std::{collections::HashMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    oauth::OAuth,
    simulation::{ApiKey, Simulation},
};

/// Users, logins, clients and API keys.
#[derive(Serialize, Deserialize)]
struct Kept {
    oauth: OAuth,
    api_keys: HashMap<String, ApiKey>,
}

/// Takes into `simulation` what `file` holds; nothing where there is no such file.
///
/// # Errors
/// `InvalidData` where the file is not one that [`save`] wrote, and those of reading.
pub fn load(file: &Path, simulation: &mut Simulation) -> io::Result<()> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let kept: Kept = serde_json::from_slice(&text)?;
    (simulation.oauth, simulation.api_keys) = (kept.oauth, kept.api_keys);
    Ok(())
}

/// Writes it into `file`, which is replaced as a whole.
///
/// # Errors
/// Those of writing.
pub fn save(file: &Path, simulation: &Simulation) -> io::Result<()> {
    let kept = Kept {
        oauth: simulation.oauth.clone(),
        api_keys: simulation.api_keys.clone(),
    };
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(&kept)?)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{oauth::User, platform::Platform};

    #[test]
    fn a_platform_knows_its_users_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("sim-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("kept.json");
        let mut before = Simulation::new(1, Vec::new());
        load(&file, &mut before).expect("no file is no error");
        before.oauth.upsert_user(User {
            email: "alice@example.test".into(),
            account_id: "ws-alice".into(),
            plan: "plus".into(),
            access_lifetime_seconds: None,
        });
        let (platform, name) = (Some(Platform::OpenAi), "team".to_owned());
        let key = ApiKey { platform, name };
        before.api_keys.insert("sk-1".into(), key);
        save(&file, &before).expect("saved");

        let mut after = Simulation::new(2, Vec::new());
        load(&file, &mut after).expect("loaded");
        assert!(after.oauth.user("alice@example.test").is_some());
        assert_eq!(after.api_keys["sk-1"].name, "team");

        fs::write(&file, "{").expect("written");
        let broken = load(&file, &mut after).expect_err("half a file");
        assert_eq!(broken.kind(), io::ErrorKind::UnexpectedEof);
        fs::remove_dir_all(folder).expect("removed");
    }
}
