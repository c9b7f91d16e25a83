//! Override profiles that point a refresher's platforms at the simulator.

use std::{fs, io, path::Path};

use serde::Serialize;

use crate::platform::Platform;

#[derive(Serialize)]
struct Profile<'a> {
    id: &'a str,
    upstream: Upstream<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oauth: Option<OAuth<'a>>,
}

#[derive(Serialize)]
struct Upstream<'a> {
    base_url: &'a str,
    ca_file: &'a Path,
}

#[derive(Serialize)]
struct OAuth<'a> {
    authorize_url: String,
    token_url: String,
    revoke_url: String,
    ca_file: &'a Path,
}

/// Writes `<platform>.toml` for every platform into `directory`, with only the keys that change.
pub fn write(directory: &Path, base_url: &str, ca_file: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for platform in Platform::ALL {
        let text = render(platform, base_url, ca_file).map_err(io::Error::other)?;
        fs::write(directory.join(format!("{}.toml", platform.id())), text)?;
    }
    Ok(())
}

fn render(platform: Platform, base_url: &str, ca_file: &Path) -> Result<String, toml::ser::Error> {
    toml::to_string(&Profile {
        id: platform.id(),
        upstream: Upstream { base_url, ca_file },
        oauth: (platform == Platform::Codex).then(|| OAuth {
            authorize_url: format!("{base_url}/oauth/authorize"),
            token_url: format!("{base_url}/oauth/token"),
            revoke_url: format!("{base_url}/oauth/revoke"),
            ca_file,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_oauth_platforms_get_oauth_urls() {
        let parse = |platform| -> toml::Table {
            let text = render(
                platform,
                "https://127.0.0.1:1",
                Path::new("/tmp/a \"b\"/ca.pem"),
            );
            toml::from_str(&text.expect("TOML")).expect("TOML")
        };
        let codex = parse(Platform::Codex);
        assert_eq!(
            codex["upstream"]["base_url"].as_str(),
            Some("https://127.0.0.1:1")
        );
        assert_eq!(
            codex["upstream"]["ca_file"].as_str(),
            Some("/tmp/a \"b\"/ca.pem")
        );
        assert_eq!(
            codex["oauth"]["token_url"].as_str(),
            Some("https://127.0.0.1:1/oauth/token")
        );
        assert!(!parse(Platform::OpenAi).contains_key("oauth"));
    }
}
