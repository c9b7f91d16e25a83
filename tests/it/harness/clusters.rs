//! The clusters that the fake refresher gives Envoy: the real refresher's, for accounts that it does not have.

use std::{collections::BTreeSet, fs, path::Path};

use refresher::{
    config,
    envoy::clusters::{ESCAPE_SOCKET, cluster},
    platform::catalog::Catalog,
};
use serde_json::{Value, json};

/// The cluster of a platform, or of an account that has one of its own here: so a test can move one account elsewhere.
pub fn name(owner: &str) -> String {
    format!("latchkey-{owner}")
}

/// Writes `envoy/clusters.json` into the state directory and moves it into place: one cluster for each owner, all of
/// them leading to the simulated platform.
pub fn write(state: &Path, owners: &[&str], platforms_dir: &Path, wasm: &Path) {
    let catalog = Catalog::load(Some(platforms_dir), BTreeSet::new()).expect("profiles");
    let profile = catalog.profile("openai").expect("a profile");
    let settings = config::Envoy {
        wasm: wasm.to_owned(),
        escape: Some(state.join("run").join(ESCAPE_SOCKET)),
        ..config::Envoy::default()
    };
    let resources: Vec<Value> = owners
        .iter()
        .map(|owner| {
            cluster(
                &name(owner),
                &profile.upstream.url.origin,
                profile,
                &settings,
            )
        })
        .collect();
    let folder = state.join("envoy");
    let (new, place) = (folder.join("clusters.new"), folder.join("clusters.json"));
    fs::write(&new, json!({"resources": resources}).to_string()).expect("written");
    fs::rename(new, place).expect("moved");
}
