use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::timeout;

use crate::harness::{
    Stack,
    caller::chat_body,
    eventually, holds,
    program::find,
    refresher::Refresher,
    run,
    sim::{Sim, account_id},
    stack::{ALICE, new_folder},
};

/// The time in which a command says what is wrong, whatever it meets. It takes a tenth of a second where nobody else needs the
/// cores, and would wait for ever where it waits at all.
const LIMIT: Duration = Duration::from_secs(60);

/// Nobody we know.
const STRANGER: u32 = 65_534;

/// A file or folder of those that decide, and what is done to it.
type Spoil = fn(&Path);

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

fn fifo(path: &Path) {
    fs::remove_file(path).expect("removed");
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("mkfifo runs").success());
}

/// Puts a link of a stranger's in the place of a file that is ours.
fn strangers_link(path: &Path) {
    let target = path.with_extension("target");
    fs::rename(path, &target).expect("moved");
    symlink(target, path).expect("linked");
    lchown(path, Some(STRANGER), None).expect("given away");
}

/// What may be done to a file that decides, and what cures it. Only root can give a file to somebody else.
fn spoils() -> Vec<(&'static str, Spoil, &'static str)> {
    let lax: [(&str, Spoil, &str); 3] = [
        (
            "others may write it",
            |path| mode(path, 0o646),
            "chmod go-w",
        ),
        ("a pipe", fifo, "expected a file"),
        (
            "a directory",
            |path| {
                fs::remove_file(path).expect("removed");
                fs::create_dir(path).expect("made");
            },
            "expected a file",
        ),
    ];
    let foreign: [(&str, Spoil, &str); 3] = [
        (
            "a stranger's group may write it",
            |path| {
                lchown(path, None, Some(STRANGER)).expect("given away");
                mode(path, 0o664);
            },
            "chmod go-w",
        ),
        (
            "a stranger's",
            |path| lchown(path, Some(STRANGER), None).expect("given away"),
            "chown",
        ),
        ("a stranger's link", strangers_link, "chown"),
    ];
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!(
            "not tried, since only root can give files away: files and links of a stranger's"
        );
    }
    let foreign = foreign.into_iter().filter(|_| is_root);
    lax.into_iter().chain(foreign).collect()
}

/// Puts a link in the place of a file, to a directory where everybody may write.
fn open_target(path: &Path) {
    let folder = PathBuf::from(format!("{}.open", path.display()));
    fs::create_dir(&folder).expect("made");
    let target = folder.join("file");
    fs::rename(path, &target).expect("moved");
    symlink(target, path).expect("linked");
    mode(&folder, 0o777);
}

/// Takes away what [`Spoil`]s leave.
fn clear(path: &Path) {
    for name in [path.to_owned(), path.with_extension("target")] {
        fs::remove_file(&name)
            .or_else(|_| fs::remove_dir(&name))
            .ok();
    }
    fs::remove_dir_all(format!("{}.open", path.display())).ok();
}

/// The folder of a refresher with a platform of its own, and the files that say where its credentials go.
async fn decided(name: &str) -> (Refresher, [PathBuf; 4]) {
    let folder = new_folder(name);
    let sim = Sim::start(&folder).await;
    let refresher = Refresher::new(&folder, &sim);
    // What only reads makes no state.
    refresher.add_api_key("one", "openai", "sk-1").await;
    let (profile, ca) = (sim.platforms_dir.join("own.toml"), folder.join("own.pem"));
    fs::write(&ca, "").expect("written");
    let text = format!(
        "extends = 'openai'\nupstream.ca_file = '{}'\n",
        ca.display()
    );
    fs::write(&profile, text).expect("written");
    let config = refresher.file("config.toml");
    for path in [&config, &profile, &ca] {
        mode(path, 0o644);
    }
    (refresher, [config, profile, ca, sim.platforms_dir.clone()])
}

/// The words of a command that must be refused, in time.
async fn refused(refresher: &Refresher, case: &str) -> String {
    refused_to(refresher, &["accounts", "list"], case).await
}

/// [`refused`] for another command.
async fn refused_to(refresher: &Refresher, arguments: &[&str], case: &str) -> String {
    let command = refresher.try_run(arguments, "");
    let output = timeout(LIMIT, command).await;
    let output = output.unwrap_or_else(|_| panic!("{case}: it waits"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{case}: {said}");
    said
}

/// Whoever else can write a file that decides where a credential goes, or put another in its place, has it refused, with
/// its name and the cure. Nothing is waited for.
#[test]
fn only_the_owner_writes_what_decides() {
    run(async {
        for (case, spoil, cure) in spoils() {
            for number in 0..3 {
                let (refresher, files) = decided("law-owner-files").await;
                refresher.run(&["accounts", "list"], "").await;
                spoil(&files[number]);
                let said = refused(&refresher, case).await;
                let path = files[number].to_str().expect("UTF-8");
                assert!(said.contains(path) && said.contains(cure), "{case}: {said}");
            }
        }
        let (refresher, files) = decided("law-owner-own-group").await;
        for file in &files[..3] {
            mode(file, 0o664); // as a umask of 002 makes it
        }
        refresher.run(&["accounts", "list"], "").await;
        let (refresher, [.., platforms]) = decided("law-owner-folders").await;
        for folder in [platforms.as_path(), refresher.folder()] {
            mode(folder, 0o777);
            let said = refused(&refresher, "a folder").await;
            let path = folder.to_str().expect("UTF-8");
            assert!(said.contains(path) && said.contains("chmod go-w"), "{said}");
            mode(folder, 0o755);
            refresher.run(&["accounts", "list"], "").await;
        }
    });
}

/// Whoever else writes the filter sees every credential, and whoever else writes the certificates that Envoy trusts says who
/// a platform is. Neither gets into the file of clusters, unless Envoy is where nobody here can look.
#[test]
fn only_the_owner_writes_what_envoy_sees_credentials_with() {
    run(async {
        let folder = new_folder("law-owner-envoy");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        refresher.add_api_key("one", "openai", "sk-1").await;
        // A platform whose hosts are known by what Envoy trusts.
        let profile =
            "extends = 'openai-compatible'\nupstream.base_url = 'https://llm.example.com/v1'\n";
        fs::write(sim.platforms_dir.join("plain.toml"), profile).expect("written");
        refresher.add_api_key("two", "plain", "sk-2").await;
        let (wasm, ca) = (folder.join("own.wasm"), folder.join("own.pem"));
        let config = fs::read_to_string(refresher.file("config.toml")).expect("read");
        let (others, _) = config.split_once("[envoy]").expect("a section");
        let (named, clusters) = (
            format!(
                "{others}[envoy]\nwasm = '{}'\ntrusted_ca = '{}'\n",
                wasm.display(),
                ca.display()
            ),
            refresher.file("envoy/clusters.json"),
        );
        fs::write(refresher.file("config.toml"), named).expect("written");
        let restore = |path: &Path| {
            clear(path);
            fs::write(path, "what Envoy reads").expect("written");
            mode(path, 0o644);
        };
        let open: (&str, Spoil, &str) = ("a link to where others write", open_target, "chmod go-w");
        let missing: (&str, Spoil, &str) = ("missing", clear, "--envoy-elsewhere");
        for (case, spoil, cure) in spoils().into_iter().chain([open, missing]) {
            for path in [&wasm, &ca] {
                restore(&wasm);
                restore(&ca);
                spoil(path);
                let said = refused_to(&refresher, &["serve"], case).await;
                let shown = path.to_str().expect("UTF-8");
                assert!(
                    said.contains(shown) && said.contains(cure),
                    "{case}: {said}"
                );
                assert!(!clusters.exists(), "{case}");
                // An Envoy may be told of what is not here.
                if case != "missing" {
                    let said = refused_to(&refresher, &["envoy-config"], case).await;
                    assert!(said.contains(shown), "{case}: {said}");
                }
            }
        }
        restore(&wasm);
        restore(&ca);
        // Another filter than was built.
        let sum = folder.join("own.wasm.sha256");
        fs::write(&sum, format!("{}  own.wasm\n", "0".repeat(64))).expect("written");
        mode(&sum, 0o644);
        let said = refused_to(&refresher, &["serve"], "altered").await;
        let named = said.contains("own.wasm") && said.contains("together from one build");
        assert!(named, "{said}");
        assert!(!clusters.exists(), "altered");
        refresher.serve_with(&["--envoy-elsewhere"]).await;
        refresher.stop().await;
        clear(&sum);
        mode(&ca, 0o666);
        let doctor = refresher.try_run(&["doctor", "--offline"], "").await;
        let found = String::from_utf8_lossy(&doctor.stdout);
        let cure = format!("chmod go-w {}", ca.display());
        assert!(found.contains(&cure), "{found}");
        refresher.serve_with(&["--envoy-elsewhere"]).await;
        refresher.stop().await;
        // A link of root's or the owner's, as systems have it, to a file that nobody else writes.
        mode(&ca, 0o644);
        fs::rename(&ca, folder.join("bundle.pem")).expect("moved");
        symlink("bundle.pem", &ca).expect("linked");
        refresher.serve_with(&[]).await;
        let written = fs::read_to_string(&clusters).expect("read");
        assert!(written.contains(wasm.to_str().expect("UTF-8")), "{written}");
    });
}

/// Whoever else writes the certificates that the environment names has refresh tokens sent to themselves.
#[test]
fn only_the_owner_writes_whom_tokens_are_given_to() {
    run(async {
        let folder = new_folder("law-owner-roots");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        // Its token endpoint is known by what the environment names, and by nothing else.
        let profile = sim.platforms_dir.join("codex.toml");
        let text = fs::read_to_string(&profile).expect("read");
        let (before, oauth) = text.split_once("[oauth]").expect("a section");
        let kept = oauth.lines().filter(|line| !line.starts_with("ca_file"));
        let kept: Vec<&str> = kept.collect();
        fs::write(&profile, format!("{before}[oauth]{}\n", kept.join("\n"))).expect("written");
        let pem = sim.platforms_dir.parent().expect("a folder").join("ca.pem");
        let pem = fs::read_to_string(pem).expect("the certificate");
        sim.add_user(ALICE, Duration::from_secs(3600)).await;
        refresher.import(&sim, ALICE).await;

        let certs = folder.join("certs");
        fs::create_dir(&certs).expect("made");
        let path = certs.join("own.pem");
        let restore = || {
            clear(&path);
            fs::write(&path, &pem).expect("written");
            mode(&path, 0o644);
        };
        let asked = async || {
            let seen = sim.seen().await;
            seen.iter()
                .filter(|one| one.path() == "/oauth/token")
                .count()
        };
        let mut before = asked().await;
        let open: (&str, Spoil, &str) = ("a link to where others write", open_target, "chmod go-w");
        let missing: (&str, Spoil, &str) = ("missing", clear, "unset SSL_CERT_");
        for (variable, value) in [("SSL_CERT_FILE", &path), ("SSL_CERT_DIR", &certs)] {
            refresher.set_variable(variable, value);
            let shown = value.to_str().expect("UTF-8");
            for (case, spoil, cure) in spoils().into_iter().chain([open, missing]) {
                // In a directory a bad file is left out; here it is the only one.
                let cure = match variable {
                    "SSL_CERT_DIR" => "unset SSL_CERT_DIR",
                    _ => cure,
                };
                restore();
                spoil(&path);
                fs::remove_file(path.with_extension("target")).ok();
                for command in [&["serve"][..], &["refresh", ALICE]] {
                    let said = refused_to(&refresher, command, case).await;
                    let is_told = said.contains(shown) && said.contains(variable);
                    assert!(is_told && said.contains(cure), "{case}: {said}");
                }
            }
            restore();
            mode(&certs, 0o777);
            let said = refused_to(&refresher, &["refresh", ALICE], variable).await;
            let is_told = said.contains(variable) && said.contains("chmod go-w");
            assert!(is_told, "{said}");
            mode(&certs, 0o755);
            assert_eq!(asked().await, before);
            refresher.run(&["refresh", ALICE], "").await;
            before += 1;
            assert_eq!(asked().await, before);
            fs::write(&path, "no certificate").expect("written");
            let said = refused_to(&refresher, &["refresh", ALICE], variable).await;
            assert!(
                said.contains("found none") && said.contains(variable),
                "{said}"
            );
            refresher.unset_variable(variable);
        }
    });
}

/// Adds a platform at whose page people log in, in a browser that is opened for it.
fn add_page(sim: &Sim) {
    let page = format!("https://{}", sim.authority());
    let text = format!(
        "extends = 'openai'\ncredentials = ['session']\n\
         [login.session]\nurl = '{page}/login'\ncredential = '{{token}}'\ndone.address = '{page}/done'\n\
         secrets.token = {{ cookie = 'session' }}\n"
    );
    fs::write(sim.platforms_dir.join("page.toml"), text).expect("written");
}

/// A folder for programs that is the whole `PATH`: no other that the machine has is found.
fn programs(refresher: &mut Refresher) -> PathBuf {
    let bin = refresher.folder().join("bin");
    fs::create_dir(&bin).expect("made");
    // It starts what is tested.
    let setpriv = find("setpriv").expect("setpriv");
    symlink(setpriv, bin.join("setpriv")).expect("linked");
    refresher.set_variable("PATH", &bin);
    bin
}

/// A program that notes in `ran` that it was run.
fn program(path: &Path, ran: &Path) {
    let text = format!("#!/bin/sh\necho ran >>'{}'\n", ran.display());
    fs::write(path, text).expect("written");
    mode(path, 0o755);
}

/// True where a search for the program finds it.
fn can_be_run(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// [`spoils`], and those of a program that is found all the same.
fn spoils_of_programs() -> Vec<(&'static str, Spoil, &'static str)> {
    let more: [(&str, Spoil, &str); 3] = [
        (
            "others may write the program",
            |path| mode(path, 0o757),
            "chmod go-w",
        ),
        ("a link to where others write", open_target, "chmod go-w"),
        (
            "a folder where others write",
            |path| mode(path.parent().expect("a folder"), 0o777),
            "chmod go-w",
        ),
    ];
    spoils().into_iter().chain(more).collect()
}

/// Whoever else writes the browser that a login opens reads what a person types there, and the session that comes of it.
#[test]
fn only_the_owner_writes_the_browser_of_a_session() {
    run(async {
        let folder = new_folder("law-owner-browser");
        let sim = Sim::start(&folder).await;
        add_page(&sim);
        let mut refresher = Refresher::new(&folder, &sim);
        let (bin, ran) = (programs(&mut refresher), folder.join("ran"));
        let path = bin.join("chromium");
        let config = fs::read_to_string(refresher.file("config.toml")).expect("read");
        let login = ["login", "page", "--session"];
        // By its path, by its name, and as the first of those that are known.
        for named in [path.to_str(), Some("chromium"), None] {
            let named = named.map(|named| format!("browser = '{named}'\n"));
            let named = named.unwrap_or_default();
            fs::write(refresher.file("config.toml"), named.clone() + &config).expect("written");
            for (case, spoil, cure) in spoils_of_programs() {
                clear(&path);
                program(&path, &ran);
                spoil(&path);
                // A search passes over what cannot be run.
                let is_found = named.contains('/') || can_be_run(&path);
                let said = refused_to(&refresher, &login, case).await;
                let is_told = said.contains("the browser is not run") && said.contains(cure);
                assert!(is_told || !is_found, "{named}{case}: {said}");
                assert!(!ran.exists(), "{named}{case}");
                if named.contains('/') {
                    let doctor = refresher.try_run(&["doctor", "--offline"], "").await;
                    let found = String::from_utf8_lossy(&doctor.stdout);
                    assert!(found.contains("the browser is not run"), "{case}: {found}");
                }
                mode(&bin, 0o755);
            }
            clear(&path);
            program(&path, &ran);
            let said = refused_to(&refresher, &login, "no browser").await;
            assert!(said.contains("it opened no window"), "{named}{said}");
            fs::remove_file(&ran).expect("it was run");
        }
    });
}

/// Whoever else writes the program that opens a URL could send the person elsewhere. It is not run, and the login goes on:
/// the person opens the URL that was printed.
#[test]
fn only_the_owner_writes_what_opens_a_url() {
    run(async {
        let folder = new_folder("law-owner-opener");
        let sim = Sim::start(&folder).await;
        sim.redirect_to(0).await;
        sim.add_user(ALICE, Duration::from_secs(3600)).await;
        let mut refresher = Refresher::new(&folder, &sim);
        let (bin, ran) = (programs(&mut refresher), folder.join("ran"));
        let path = bin.join("xdg-open");
        refresher.set_variable("DISPLAY", Path::new(":0"));
        let fine: (&str, Spoil, &str) = ("the owner's", |_| {}, "");
        for (case, spoil, cure) in spoils_of_programs().into_iter().chain([fine]) {
            clear(&path);
            program(&path, &ran);
            spoil(&path);
            let is_found = can_be_run(&path);
            let log = format!("login {case}.log");
            let mut login = refresher
                .start_command(&[], &["login", "codex"], &log)
                .await;
            let url = eventually("the URL is printed", LIMIT, async || {
                login.assert_alive();
                let printed = login.printed();
                let mut words = printed.split_whitespace();
                let url = words.find(|word| word.starts_with("https://"));
                let is_told = printed.contains("open the URL yourself") && printed.contains(cure);
                let is_whole = match case {
                    "the owner's" => ran.exists(),
                    _ => is_told || !is_found,
                };
                let url = url.filter(|_| is_whole).map(str::to_owned);
                url.ok_or_else(|| format!("{case}: {printed}"))
            })
            .await;
            let address = sim.authorize(&url, ALICE).await;
            assert_eq!(sim.browse(&address).await.0, 200, "{case}");
            assert!(login.ends().await.success(), "{case}: {}", login.printed());
            assert_eq!(
                ran.exists(),
                case == "the owner's",
                "{case}: {}",
                login.printed()
            );
            mode(&bin, 0o755);
        }
    });
}

/// A mounted ConfigMap is a link to a link of a version's folder, all of the same owner.
#[test]
fn what_is_mounted_by_the_owner_is_read() {
    run(async {
        let (refresher, [config, profile, ..]) = decided("law-owner-mounted").await;
        for path in [config, profile] {
            let (folder, name) = (path.parent().expect("a folder"), path.file_name());
            let version = folder.join("..2026_11_29");
            fs::create_dir(&version).expect("made");
            let target = version.join(name.expect("a name"));
            fs::rename(&path, target).expect("moved");
            symlink("..2026_11_29", folder.join("..data")).expect("linked");
            let data = Path::new("..data").join(name.expect("a name"));
            symlink(data, &path).expect("linked");
        }
        refresher.add_api_key("own", "own", "sk-own").await;
        assert_eq!(refresher.account("own").await["usable"], true);
    });
}

/// A secret that was put into the wrong file, or on the wrong line, is in no message.
#[test]
fn no_line_of_a_file_is_quoted() {
    const SECRET: &str = "sk-Lost7";
    run(async {
        let (refresher, [config, profile, ..]) = decided("law-owner-quotes").await;
        for path in [config, profile] {
            let before = fs::read_to_string(&path).expect("read");
            for line in [
                SECRET.to_owned(),
                format!("acknowledged_terms = {SECRET}"),
                format!("acknowledged_terms = '{SECRET}'"),
                format!("models = '{SECRET}'"),
                format!("'{SECRET}' = 1"),
                format!("upstream.base_url = 'http:/{SECRET}'"),
                format!("oauth.token_url = 'https://{SECRET}@example.com?{SECRET}'"),
                format!("headers.set.x-a = \"{SECRET}\\n\""),
                format!("'{SECRET}"),
            ] {
                fs::write(&path, format!("\n{line}\n{before}")).expect("written");
                let said = refused(&refresher, &line).await;
                let place = format!("{}:", path.display());
                assert!(said.contains(&place), "{line}: {said}");
                assert!(!said.contains("Lost7"), "{line}: {said}");
            }
            fs::write(&path, before).expect("written");
        }
    });
}

/// Whoever can write the database, but does not have the sealing key, sends no credential to a host of theirs: the account
/// is out of use with a sentence that says why, neither refreshed nor moved, and serves again where its owner meant it.
#[test]
fn a_base_url_that_somebody_else_wrote_gets_no_credential() {
    run(async {
        let mut evil = None;
        let stack = Stack::real("law-owner-base-url", async |sim, refresher| {
            let folder = refresher.folder().join("evil");
            fs::create_dir_all(&folder).expect("a folder");
            let there = Sim::start(&folder).await;
            let ca_file = folder.join("both.pem");
            let both = [sim, &there].map(|sim| {
                let folder = sim.platforms_dir.parent().expect("a folder");
                fs::read_to_string(folder.join("ca.pem")).expect("a certificate")
            });
            fs::write(&ca_file, both.concat()).expect("written");
            let profile = format!(
                "extends = 'openai'\n[upstream]\nbase_url = 'https://{}/v1'\naccount_base_url = true\nown_network = true\nca_file = '{}'\n",
                sim.authority(),
                ca_file.display()
            );
            fs::write(sim.platforms_dir.join("regions.toml"), profile).expect("written");
            for at in [sim, &there] {
                at.add_api_key("openai", "sk-mine", "mine").await;
            }
            refresher.add_api_key("mine", "regions", "sk-mine").await;
            evil = Some(there);
        })
        .await;
        let evil = evil.expect("started");
        let caller = stack.caller("team").await;
        let answers = async |status: u16| {
            eventually(&format!("{status}"), LIMIT, async || {
                let answer = caller.post("/v1/chat/completions", &chat_body(false)).await;
                holds(answer.status == status, || format!("{answer:?}"))
            })
            .await;
        };
        answers(200).await;
        // Envoy hears of each change as of one of the operator's.
        let edit = async |url: &str| {
            stack.refresher.change_database(&format!(
                "UPDATE meta SET revision = revision + 1; UPDATE accounts SET base_url = {url}, \
                 revision = (SELECT revision FROM meta)"
            ));
        };
        edit(&format!("'https://{}/v1'", evil.authority())).await;
        answers(503).await;
        let status = stack.refresher.run(&["status"], "").await;
        assert!(
            status.contains("its base URL was changed in the database"),
            "{status}"
        );
        // Neither a new place nor a new key makes it good: only who says the place anew.
        let key = [
            "accounts",
            "add",
            "mine",
            "--platform",
            "regions",
            "--replace",
        ];
        for (command, cure) in [
            (
                &["accounts", "set", "mine", "--base-url", "none"][..],
                "accounts add --replace",
            ),
            (&key[..], "add --base-url URL"),
        ] {
            let refused = stack.refresher.try_run(command, "sk-mine").await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains(cure), "{said}");
        }
        answers(503).await;
        edit("NULL").await;
        answers(200).await;
        assert_eq!(evil.seen().await.len(), 0);
    });
}

/// A stolen database does not tell whose its accounts are: what a login tells of its person is sealed like its tokens.
#[test]
fn who_logged_in_is_in_no_file() {
    run(async {
        let folder = new_folder("law-owner-person");
        let sim = Sim::start(&folder).await;
        let mut refresher = Refresher::new(&folder, &sim);
        sim.add_user(ALICE, Duration::from_secs(3600)).await;
        refresher.serve().await;
        refresher.log_in_as(&sim, ALICE, "first").await;
        refresher.run(&["refresh", "first"], "").await;
        let name = ALICE.split('@').next().expect("a name");
        let found = files(&refresher.file(""));
        assert!(
            found
                .iter()
                .any(|(path, _)| path.ends_with("latchkey.db-wal"))
        );
        for who in [ALICE.to_owned(), account_id(ALICE), name.to_owned()] {
            for (path, bytes) in &found {
                let holds = bytes.windows(who.len()).any(|part| part == who.as_bytes());
                assert!(!holds, "{who} in {}", path.display());
            }
        }
        // The same person's next login is the same account's all the same.
        refresher.log_in_as(&sim, ALICE, "second").await;
        let accounts = refresher.accounts().await;
        assert_eq!(accounts.len(), 1, "{accounts:?}");
        assert_eq!(accounts[0]["name"], "first");
    });
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            // Sockets hold nothing.
            false => fs::read(&path)
                .map(|bytes| (path, bytes))
                .into_iter()
                .collect(),
        })
        .collect()
}

/// Whoever else writes the file that a credential is taken from has callers use an account of theirs.
#[test]
fn no_credential_is_taken_from_a_file_that_others_write() {
    run(async {
        let folder = new_folder("law-owner-taken");
        let sim = Sim::start(&folder).await;
        let refresher = Refresher::new(&folder, &sim);
        let (key, login) = (folder.join("key"), folder.join("auth.json"));
        let (key_text, login_text) = (key.to_str().expect("UTF-8"), login.to_str().expect("UTF-8"));
        let add = [
            "accounts",
            "add",
            "a",
            "--platform",
            "openai",
            "--key-file",
            key_text,
        ];
        let import = ["import", login_text];
        let is_root = rustix::process::geteuid().is_root();
        let spoils: [(&str, Spoil, &str, i32); 3] = [
            (
                "others may write it",
                |path| mode(path, 0o646),
                "chmod go-w",
                1,
            ),
            ("a pipe", fifo, "expected a file", 2),
            ("a stranger's link", strangers_link, "chown", 1),
        ];
        for (case, spoil, cure, code) in spoils.into_iter().take(if is_root { 3 } else { 2 }) {
            for (path, arguments) in [(&key, &add[..]), (&login, &import[..])] {
                fs::write(path, "sk-secret7").expect("written");
                mode(path, 0o600);
                spoil(path);
                let output = timeout(LIMIT, refresher.try_run(arguments, "")).await;
                let output = output.unwrap_or_else(|_| panic!("{case}: it waits"));
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(code), "{case}: {said}");
                assert!(
                    said.contains(path.to_str().expect("UTF-8")),
                    "{case}: {said}"
                );
                assert!(
                    said.contains(cure) && !said.contains("secret7"),
                    "{case}: {said}"
                );
                fs::remove_file(path).expect("removed");
            }
        }
        fs::write(&key, "sk-own").expect("written");
        mode(&key, 0o644);
        refresher.run(&add, "").await;
    });
}
