//! Override profiles that point a refresher's platforms at the simulator.

use std::{fs, io, path::Path};

use serde::Serialize;

use crate::platform::Platform;

#[derive(Serialize)]
struct Profile<'a> {
    id: &'a str,
    upstream: Upstream<'a>,
    api_key: ApiKey,
    /// Tests count the calls that come.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_endpoint: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oauth: Option<OAuth<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<Login>,
}

#[derive(Serialize)]
struct Upstream<'a> {
    base_url: String,
    ca_file: &'a Path,
}

/// The keys of tests are short.
#[derive(Serialize)]
struct ApiKey {
    shortest: usize,
}

#[derive(Serialize)]
struct OAuth<'a> {
    token_url: String,
    revoke_url: String,
    ca_file: &'a Path,
}

#[derive(Serialize)]
struct Login {
    code: Authorize,
    device: Device,
}

#[derive(Serialize)]
struct Device {
    authorize_url: String,
    by_code: ByCode,
}

#[derive(Serialize)]
struct ByCode {
    page: String,
    poll_url: String,
    redirect_uri: String,
}

#[derive(Serialize)]
struct Authorize {
    authorize_url: String,
}

/// Writes `<platform>.toml` for every platform into `directory`, with only the keys that change. What a person opens is
/// at `pages_url`, where there is one.
pub fn write(
    directory: &Path,
    base_url: &str,
    pages_url: Option<&str>,
    ca_file: &Path,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for platform in Platform::ALL {
        let text = render(platform, base_url, pages_url, ca_file).map_err(io::Error::other)?;
        fs::write(directory.join(format!("{}.toml", platform.id())), text)?;
    }
    Ok(())
}

fn render(
    platform: Platform,
    base_url: &str,
    pages_url: Option<&str>,
    ca_file: &Path,
) -> Result<String, toml::ser::Error> {
    let has_logins = platform == Platform::Codex;
    let at = pages_url.unwrap_or(base_url);
    toml::to_string(&Profile {
        id: platform.id(),
        upstream: Upstream {
            base_url: format!("{base_url}{}", platform.base_path()),
            ca_file,
        },
        api_key: ApiKey { shortest: 0 },
        login: has_logins.then(|| Login {
            code: Authorize {
                authorize_url: format!("{at}/oauth/authorize"),
            },
            device: Device {
                authorize_url: format!("{base_url}/api/accounts/deviceauth/usercode"),
                by_code: ByCode {
                    page: format!("{at}/codex/device"),
                    poll_url: format!("{base_url}/api/accounts/deviceauth/token"),
                    redirect_uri: format!("{base_url}/deviceauth/callback"),
                },
            },
        }),
        quota_endpoint: has_logins.then_some(false),
        oauth: has_logins.then(|| OAuth {
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
        let with_pages = |platform, pages| -> toml::Table {
            let ca_file = Path::new("/tmp/a \"b\"/ca.pem");
            let text = render(platform, "https://127.0.0.1:1", pages, ca_file);
            toml::from_str(&text.expect("TOML")).expect("TOML")
        };
        let parse = |platform| with_pages(platform, None);
        let codex = parse(Platform::Codex);
        assert_eq!(
            codex["upstream"]["base_url"].as_str(),
            Some("https://127.0.0.1:1/backend-api/codex")
        );
        assert_eq!(
            codex["upstream"]["ca_file"].as_str(),
            Some("/tmp/a \"b\"/ca.pem")
        );
        assert_eq!(
            codex["oauth"]["token_url"].as_str(),
            Some("https://127.0.0.1:1/oauth/token")
        );
        assert_eq!(
            codex["login"]["code"]["authorize_url"].as_str(),
            Some("https://127.0.0.1:1/oauth/authorize")
        );
        let device = &codex["login"]["device"];
        assert_eq!(
            device["authorize_url"].as_str(),
            Some("https://127.0.0.1:1/api/accounts/deviceauth/usercode")
        );
        assert_eq!(
            device["by_code"]["page"].as_str(),
            Some("https://127.0.0.1:1/codex/device")
        );
        let login = &with_pages(Platform::Codex, Some("http://localhost:2"))["login"];
        assert_eq!(
            login["code"]["authorize_url"].as_str(),
            Some("http://localhost:2/oauth/authorize")
        );
        let device = &login["device"]["by_code"];
        assert_eq!(
            device["page"].as_str(),
            Some("http://localhost:2/codex/device")
        );
        assert_eq!(
            device["poll_url"].as_str(),
            Some("https://127.0.0.1:1/api/accounts/deviceauth/token")
        );
        for key in ["oauth", "login"] {
            assert!(!parse(Platform::OpenAi).contains_key(key));
        }
    }
}
