//! The cure of each fault, in the words of the door that its reader came through.
//!
//! A new door is one more [`Door`] and one more function like [`on_command_line`].

use crate::failing::Failure;
use crate::fault::{Fault, KeyPlace, KeyringFault, Kind};

/// A place at which people meet Latchkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The command line. Whoever reads the daemon's log has it too.
    CommandLine,
}

/// The cure of `fault`, as a clause without a full stop; none where the error's own sentence says all there is.
pub fn cure(door: Door, fault: &Fault) -> Option<String> {
    match door {
        Door::CommandLine => on_command_line(fault),
    }
}

/// The cure of an account's ended login, as a shell takes it. The command prints the URL to open.
pub fn login_command(platform: &str, account: &str) -> String {
    format!("refresher login {platform} --name {}", shell_word(account))
}

/// The cure of an account's ended login, as a clause; `is_client`: it is a client of an account's own, which buys tokens,
/// and which the configuration may have declared.
pub fn login_cure(platform: &str, account: &str, is_client: bool) -> String {
    let login = login_command(platform, account);
    match is_client {
        true => format!(
            "where config.toml declares it, give its variables new values and start `refresher serve` again; else run: \
             {login} --client-id ID"
        ),
        false => format!("run: {login}"),
    }
}

/// The way to a login whose browser is on another machine than the listener on `port`.
pub fn browser_elsewhere(platform: &str, account: &str, port: u16) -> String {
    format!(
        "run there first: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE; or run here: {} --paste",
        login_command(platform, account)
    )
}

/// The cure of a dead account once somebody has seen to it, as a shell takes it.
fn enable_command(account: &str) -> String {
    format!("refresher accounts enable {}", shell_word(account))
}

/// Gives an account another end, as a shell takes it.
pub fn later_end_command(account: &str) -> String {
    format!(
        "refresher accounts set {} --expires TIME",
        shell_word(account)
    )
}

/// The cure of a name by which a listener may not be asked for.
pub fn unknown_host() -> &'static str {
    "to allow it, start the refresher with --metrics-host NAME"
}

/// The cure of a database that is an older copy. The log names the accounts below it.
pub const OLDER_COPY: &str = "put the newest copy back; where there is none, log in to the accounts named below again, and \
                              revoke and remove again what is back";

/// The cure of a daemon that began before the configuration or a profile was as it is now.
pub const RESTART: &str =
    "restart `refresher serve`, which reads the configuration and the profiles when it starts";

/// The cure of a filter that is not the one that was built.
pub const OF_ONE_BUILD: &str = "copy latchkey.wasm and latchkey.wasm.sha256 together from one build (make wasm), and restart Envoy";

/// Asks the platform about an account, as a shell takes it.
pub fn check_command(account: &str) -> String {
    format!("refresher accounts check {}", shell_word(account))
}

/// Shows a platform's notice, as a shell takes it.
pub fn notice_command(platform: &str) -> String {
    format!("refresher platforms show {platform}")
}

/// The cure of an account that the configuration declared once and does not declare any more.
pub fn undeclared(account: &str) -> String {
    let account = shell_word(account);
    format!("put its lines back, or remove it: refresher accounts remove {account}")
}

/// Gives an account of an API key another one, as a shell takes it.
fn new_key_command(account: &str, platform: &str) -> String {
    let account = shell_word(account);
    format!("refresher accounts add {account} --platform {platform} --replace")
}

/// The cure of `fault` for whoever reads the daemon's log, which is somebody with a command line.
pub fn in_log(fault: &Fault) -> Option<String> {
    cure(Door::CommandLine, fault)
}

fn on_command_line(fault: &Fault) -> Option<String> {
    let cure = match fault {
        Fault::Unknown { kind, .. } => format!("see: refresher {} list", noun(*kind)),
        // Everybody needs that pool.
        Fault::NameTaken { kind: Kind::Pool, name } if name == "default" => {
            "choose another name".to_owned()
        }
        Fault::NameTaken { kind, name } => {
            let ends = match kind {
                Kind::ClientKey => "revoke",
                Kind::Account | Kind::Pool => "remove",
            };
            let (noun, name) = (noun(*kind), shell_word(name));
            format!("choose another name, or {ends} that one first: refresher {noun} {ends} {name}")
        }
        Fault::HasKey { account, platform } => format!(
            "choose another name, or give that account the new key: {}",
            new_key_command(account, platform)
        ),
        Fault::NameOfAnother { .. } => {
            "run it again and log in as the user of that account, or give this login another --name".to_owned()
        }
        Fault::OtherLogin { platform } => format!(
            "open the new URL (`refresher status` shows it) and log in there as the right user in the right workspace; \
             or add this login as an account of its own: refresher login {platform}"
        ),
        Fault::MaskedKey => {
            "a console shows a key whole only when it is made: copy it from where it was kept, or make a new one".to_owned()
        }
        Fault::ForeignKey { account, platform } => format!(
            "add it there: refresher accounts add {} --platform {platform}",
            shell_word(account)
        ),
        Fault::OwnKey => "take the key that the platform shows in its own console".to_owned(),
        Fault::PoolInUse { .. } => {
            "revoke those keys first, or give them another pool: refresher keys set KEY --pool POOL (and --no-choice, \
             if their caller may choose this one)"
                .to_owned()
        }
        Fault::DefaultPool => {
            "take accounts out of it with: refresher pools drop default ACCOUNT".to_owned()
        }
        Fault::NotInPool { .. } => "see: refresher pools list".to_owned(),
        Fault::NeedsLogin {
            account,
            platform,
            is_client,
        } => login_cure(platform, account, *is_client),
        Fault::NoLogin { account } => {
            let account = shell_word(account);
            format!("take it out of use: refresher accounts disable {account}; or remove it: refresher accounts remove {account}")
        }
        Fault::NotRevoked { account } => {
            let account = shell_word(account);
            format!(
                "try again: refresher logout {account}; or have it forgotten here, and sign out at the platform: refresher \
                 logout {account} --forget"
            )
        }
        Fault::ForeignBaseUrl { .. } => "give its address again: add --base-url URL".to_owned(),
        Fault::Dead {
            account,
            platform,
            has_key,
        } => {
            let enable = format!("see to it at {platform}, then run: {}", enable_command(account));
            match has_key {
                true => format!("{enable}; or give it a new key: {}", new_key_command(account, platform)),
                false => enable,
            }
        }
        Fault::NoApiKeys { account, platform } => {
            format!("log in with: {}", login_command(platform, account))
        }
        Fault::RefreshRunning { .. } => "see: refresher status".to_owned(),
        Fault::RefreshLater {
            account,
            platform,
            how: Some(how),
            is_client,
            ..
        } => renewal(*how, &login_cure(platform, account, *is_client)),
        Fault::RefreshLater { how: None, .. } => TRIES_AGAIN.to_owned(),
        Fault::NotAcknowledged { platform } => format!(
            "to turn it on, add \"{platform}\" to the list acknowledged_terms of config.toml in the state directory, or where \
             there is none, put acknowledged_terms = [\"{platform}\"] above its first [table]; or give --acknowledge-terms \
             {platform}"
        ),
        Fault::NotPublished => "run: refresher serve; then this again".to_owned(),
        Fault::NoPlatformsFolder => "make it, or correct platforms_dir in config.toml".to_owned(),
        Fault::NoChange => "see: refresher keys set --help".to_owned(),
        Fault::LaxMode { path, wanted } => format!("run: chmod {wanted} {}", shell_word(path)),
        Fault::ForeignOwner { path, owner, user } => format!(
            "run it as that user, where the installation is theirs: sudo -u {owner} refresher …; else run: chown {user} {}; \
             or keep Latchkey's files where every directory above them is yours or root's (in a container, as the user in it \
             has them)",
            shell_word(path)
        ),
        Fault::Unclaimed { .. } => {
            "put it there first, or name one in a directory that nobody else may write".to_owned()
        }
        Fault::WrongKind { .. } => "name another one, or move it away".to_owned(),
        Fault::StateInUse => "stop it first, or choose another --state-dir".to_owned(),
        Fault::RotationRunning => "wait for it".to_owned(),
        Fault::NoStateDir => {
            "give --state-dir, or set LATCHKEY_STATE_DIR, XDG_STATE_HOME or HOME".to_owned()
        }
        Fault::NoState => "look at --state-dir and LATCHKEY_STATE_DIR; or begin there: refresher accounts add NAME \
                            --platform openai"
            .to_owned(),
        Fault::DatabaseLost => {
            "restore a backup; or, to start empty, move high-water.json away as well".to_owned()
        }
        Fault::NotOurs => "restore a backup, or move the file away to start empty".to_owned(),
        Fault::DatabaseInUse => "end that, and start again".to_owned(),
        Fault::OtherRelease => "run the release that wrote it, or a newer one".to_owned(),
        Fault::OlderDatabase => "start `refresher serve`: it brings it up to date".to_owned(),
        Fault::WrongKey => {
            "put back the key file that belongs to it, or set LATCHKEY_KEY".to_owned()
        }
        Fault::NoKey => "put it there, or set LATCHKEY_KEY".to_owned(),
        Fault::BadKeys { place } => match place {
            KeyPlace::Environment => format!("make one with: {MAKE_KEY}"),
            KeyPlace::Operators | KeyPlace::Ours => "put the right keys back".to_owned(),
        },
        Fault::UnfinishedRotation => "finish the rotation: refresher rotate-key".to_owned(),
        Fault::Keyring { why } => keyring(*why).to_owned(),
        Fault::RetiredAlone => "set both, or neither".to_owned(),
        Fault::KeyExhausted => "make a new one: refresher rotate-key".to_owned(),
        Fault::KeyNotAtHand => {
            "if the keys come from the environment, put it into LATCHKEY_KEY".to_owned()
        }
        Fault::NoNewKey { place } => new_key(*place),
        Fault::KeyNotServed => {
            "restart `refresher serve` with this LATCHKEY_KEY and LATCHKEY_RETIRED_KEYS, then run this again"
                .to_owned()
        }
        Fault::Unopened => {
            "give the account its credential again, with its --base-url if it has one: refresher login, or accounts add \
             --replace"
                .to_owned()
        }
        Fault::Unreadable => "the log of `refresher serve` names them".to_owned(),
        Fault::SocketPathTooLong => "choose a shorter --state-dir".to_owned(),
        Fault::SocketTaken => "move it away, or choose another --state-dir".to_owned(),
        Fault::NoFilter => {
            "build it (make build), and give the path: --wasm, or `wasm` of [envoy] in config.toml; where Envoy sees other \
             files than this, as in another container, add --envoy-elsewhere"
                .to_owned()
        }
        Fault::OtherFilter => format!(
            "{OF_ONE_BUILD}; where Envoy sees other files than this, as in another container, add --envoy-elsewhere"
        ),
        Fault::RelativePath => {
            "give the whole path, as Envoy sees it: --wasm, or `wasm` or `trusted_ca` of [envoy] in config.toml; where Envoy \
             sees other files than this, as in another container, add --envoy-elsewhere"
                .to_owned()
        }
        Fault::NoTrustedCa => {
            "install it (the package ca-certificates), or give the path: `trusted_ca` of [envoy] in config.toml; where Envoy \
             sees other files than this, as in another container, add --envoy-elsewhere"
                .to_owned()
        }
        Fault::BadRoots { variable: None } => {
            "name a file of certificates in PEM form as ca_file of the profile".to_owned()
        }
        Fault::BadRoots {
            variable: Some(variable),
        } => format!(
            "unset {variable}, so that the system's certificates are trusted; or have it name certificates in PEM form, yours \
             or root's"
        ),
        Fault::MetricsAddressTaken => "choose another port".to_owned(),
        Fault::MetricsExposed => {
            "to show it to others all the same, add --metrics-anywhere".to_owned()
        }
        Fault::PortsTaken => {
            "end the login that runs there, or log in with --paste, which needs no port".to_owned()
        }
        Fault::LoginFailed => "log in again, and finish it within a few minutes".to_owned(),
        Fault::WayClosed => "log in another way: --paste".to_owned(),
        Fault::KeysAlone { platform } => {
            format!("its accounts are API keys: refresher accounts add NAME --platform {platform}")
        }
        Fault::ImportsAlone => "take one over: refresher import".to_owned(),
        Fault::NoSuchWay => "leave the flag out".to_owned(),
        Fault::NeedsClient => "give --client-id".to_owned(),
        Fault::NoWayOut => {
            "say which account it is with --name, or the way out with --proxy".to_owned()
        }
        Fault::NoProjects => "leave --project out".to_owned(),
        Fault::NeedsProject => "say which with --project".to_owned(),
        Fault::NoOwnClient { help } => {
            let make = help.as_deref().unwrap_or("make an OAuth client there");
            format!("{make}, and set both variables")
        }
        Fault::NeedsBaseUrl => "give it: --base-url URL, or base_url in the file that names the account".to_owned(),
        Fault::OwnNetwork => {
            "for a server of your own take --platform custom (any that speaks like OpenAI), ollama or vllm, or say \
             own_network = true in [upstream] of this platform's profile"
                .to_owned()
        }
        Fault::OneName { .. } => "leave --name out".to_owned(),
        Fault::NeedsPlatform => "say which with --platform".to_owned(),
        Fault::UnfitProxy => "give another with --proxy, or none".to_owned(),
        Fault::SeveralUnfit => "to leave them out and take the rest, give --skip".to_owned(),
        Fault::LikelySpent => "if you know better, give --replace".to_owned(),
        Fault::NoAccountId => "give --account-id".to_owned(),
        Fault::NoUsableLogin { platform } => {
            let platform = platform.as_deref().unwrap_or("PLATFORM");
            format!("log in with: refresher login {platform}")
        }
        Fault::BadCredential | Fault::Misconfigured | Fault::Invalid | Fault::Failed => {
            return None;
        },
    };
    Some(cure)
}

/// Makes a key on any machine that has a shell.
const MAKE_KEY: &str = "head -c 32 /dev/urandom | base64";

fn new_key(place: KeyPlace) -> String {
    match place {
        KeyPlace::Environment => format!(
            "make one with: {MAKE_KEY}; put it into LATCHKEY_KEY and the present key into LATCHKEY_RETIRED_KEYS, restart \
             `refresher serve` with both, then run this again"
        ),
        KeyPlace::Operators | KeyPlace::Ours => format!(
            "make one with: {MAKE_KEY}; put it there before the others, then run this again. `refresher serve` reads it \
             by itself"
        ),
    }
}

fn keyring(why: KeyringFault) -> &'static str {
    match why {
        KeyringFault::Denied => {
            "link @u to the session's keyring (under systemd: KeyringMode=shared), or let the entry's owner read it: \
             keyctl setperm"
        }
        KeyringFault::Gone => "put it there again",
        KeyringFault::Unavailable => {
            "run a kernel that has key retention, and let nothing (such as a container's seccomp filter) forbid keyctl"
        }
        KeyringFault::Locked => {
            "unlock it: log in to the desktop as this user, or on a server gnome-keyring-daemon --unlock with the password \
             on standard input; then run this again"
        }
        KeyringFault::NoService => {
            "run this in the user's session, with its DBUS_SESSION_BUS_ADDRESS, and a keyring daemon in it; where there is \
             none, as on a server, keep the key in a file: source = \"file\" of [key] in config.toml"
        }
        KeyringFault::Ambiguous => {
            "take the wrong entries out of it, or give another name of [key] in config.toml"
        }
    }
}

/// The cure of refreshes that fail so; `login`: that of a login that has ended.
fn renewal(how: Failure, login: &str) -> String {
    match how {
        Failure::Refused => format!(
            "{login}; where that is refused too, see to the OAuth client, and to the address or the proxy by which it leaves"
        ),
        Failure::Unreached => format!(
            "see to this machine's DNS, firewall and proxy, and to the proxy of the account; {TRIES_AGAIN}"
        ),
        Failure::Troubled => format!(
            "{TRIES_AGAIN}; if the platform is well, check what stands between, such as a proxy"
        ),
    }
}

/// The cure of what passes by itself.
const TRIES_AGAIN: &str = "`refresher serve` tries again by itself";

/// The command that is about records of a kind.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Account => "accounts",
        Kind::ClientKey => "keys",
        Kind::Pool => "pools",
    }
}

/// `text` as one word of a shell's.
pub fn shell_word(text: &str) -> String {
    // Text with a NUL cannot be quoted, and cannot be typed either.
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), Into::into)
}
