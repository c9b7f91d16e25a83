//! Keys in the keyring of the user's session: GNOME's keyring, KDE's wallet, KeePassXC and the like, by the Secret Service
//! that they offer on D-Bus. They are on the disk under the user's password alone, and the first start makes them.
//!
//! Nothing here asks the person for that password: a daemon that waits for a window nobody sees stands still. A keyring
//! that is locked is an error, with its cure.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use secret_service::{Collection, EncryptionType, Error as BusError, Item, SecretService};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Error, Given, MAX_TEXT_BYTES, Vault};
use crate::fault::KeyringFault;

/// The time that the keyring gets to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// By that, and the name, the entry is found.
const APPLICATION: (&str, &str) = ("application", "latchkey");

/// An entry of the session's keyring.
#[derive(Debug, Clone)]
pub struct SessionKeyring {
    name: String,
}

/// A refusal of the keyring: what it did not do, and why.
#[derive(Debug)]
struct Refused(String, KeyringFault);

impl SessionKeyring {
    /// The entry of that name, or else the one of the state directory `state`: two of them must not share a key, for one
    /// forgets what the other needs.
    pub fn new(name: Option<&str>, state: &Path) -> SessionKeyring {
        let name = name.map_or_else(|| state.display().to_string(), str::to_owned);
        SessionKeyring { name }
    }

    /// Does `work` with the keyring, on a thread and a runtime of its own: whoever asks for keys waits for them, and may be
    /// on a runtime that must not be waited on.
    fn with<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&SecretService<'_>, &str) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Error> {
        let name = self.name.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| unavailable(error.to_string()))?;
            let asked = async {
                let service = SecretService::connect(EncryptionType::Dh).await?;
                work(&service, &name).await
            };
            // A timeout is made inside of the runtime whose clock it goes by.
            let done = runtime.block_on(async { timeout(LIMIT, asked).await });
            done.unwrap_or_else(|_| {
                let seconds = LIMIT.as_secs();
                Err(unavailable(format!("it has not answered for {seconds} s")))
            })
        });
        let done = thread.join();
        let done = done.unwrap_or_else(|_| Err(unavailable("asking it failed".to_owned())));
        done.map_err(|Refused(problem, why)| Error::Keyring {
            place: self.place(),
            problem,
            why,
        })
    }
}

fn unavailable(problem: String) -> Refused {
    Refused(problem, KeyringFault::NoService)
}

fn locked() -> Refused {
    Refused("it is locked".to_owned(), KeyringFault::Locked)
}

impl From<BusError> for Refused {
    fn from(error: BusError) -> Refused {
        match error {
            BusError::Locked | BusError::Prompt => locked(),
            BusError::Unavailable => unavailable(
                "there is none: nothing offers a Secret Service on this session's D-Bus".to_owned(),
            ),
            // What D-Bus says of a failure holds no secret: secrets go out encrypted, and come in answers alone.
            other => unavailable(other.to_string()),
        }
    }
}

fn attributes(name: &str) -> HashMap<&str, &str> {
    HashMap::from([APPLICATION, ("name", name)])
}

/// The entry; none where there is none in a keyring that is open.
async fn find<'a>(service: &'a SecretService<'_>, name: &str) -> Result<Option<Item<'a>>, Refused> {
    let mut found = service.search_items(attributes(name)).await?;
    match (found.unlocked.len(), found.locked.len()) {
        (1, 0) => Ok(found.unlocked.pop()),
        (0, 0) => {
            // Some keyrings tell nothing of what is in them while they are locked.
            open_keyring(service).await?;
            Ok(None)
        }
        (0, _) => Err(locked()),
        (open, closed) => {
            let number = open + closed;
            let problem = format!(
                "it has {number} entries of that name, and nobody can tell which one counts"
            );
            Err(Refused(problem, KeyringFault::Ambiguous))
        }
    }
}

/// The keyring that takes new entries, if it is open.
async fn open_keyring<'a>(service: &'a SecretService<'_>) -> Result<Collection<'a>, Refused> {
    let collection = match service.get_default_collection().await {
        Err(BusError::NoResult) => {
            let problem = "there is no default keyring yet".to_owned();
            return Err(Refused(problem, KeyringFault::Locked));
        }
        found => found?,
    };
    match collection.is_locked().await? {
        true => Err(locked()),
        false => Ok(collection),
    }
}

async fn read(
    service: &SecretService<'_>,
    name: &str,
) -> Result<Option<Zeroizing<String>>, Refused> {
    let Some(item) = find(service, name).await? else {
        return Ok(None);
    };
    let secret = Zeroizing::new(item.get_secret().await?);
    if secret.len() as u64 > MAX_TEXT_BYTES {
        let problem = format!("its entry is longer than {MAX_TEXT_BYTES} bytes");
        return Err(Refused(problem, KeyringFault::Ambiguous));
    }
    let text = String::from_utf8_lossy(&secret).into_owned();
    Ok(Some(Zeroizing::new(text)))
}

async fn write(service: &SecretService<'_>, name: &str, text: &str) -> Result<(), Refused> {
    match find(service, name).await? {
        Some(item) => item.set_secret(text.as_bytes(), "text/plain").await?,
        None => {
            let keyring = open_keyring(service).await?;
            let label = format!("Latchkey: the sealing keys of {name}");
            let made = keyring.create_item(
                &label,
                attributes(name),
                text.as_bytes(),
                true,
                "text/plain",
            );
            made.await?;
        }
    }
    // What a keyring only says that it has kept would cost every credential.
    match read(service, name).await? {
        Some(kept) if *kept == *text => Ok(()),
        _ => Err(unavailable("it has not kept what was put there".to_owned())),
    }
}

impl Given for SessionKeyring {
    fn place(&self) -> String {
        format!("the entry {:?} of the session's keyring", self.name)
    }

    fn read(&self) -> Result<Option<Zeroizing<String>>, Error> {
        self.with(async |service: &SecretService<'_>, name: &str| read(service, name).await)
    }
}

impl Vault for SessionKeyring {
    fn replace(&self, text: &str) -> Result<(), Error> {
        let text = Zeroizing::new(text.to_owned());
        self.with(async move |service: &SecretService<'_>, name: &str| {
            write(service, name, &text).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_that_of_its_state_directory_unless_named() {
        let place = |name| SessionKeyring::new(name, Path::new("/var/lib/latchkey")).place();
        assert!(place(None).contains("\"/var/lib/latchkey\""));
        assert!(place(Some("ours")).contains("\"ours\""));
    }

    #[test]
    fn what_keeps_the_keyring_shut_has_its_fault() {
        let fault = |error: BusError| Refused::from(error).1;
        assert_eq!(fault(BusError::Locked), KeyringFault::Locked);
        assert_eq!(fault(BusError::Prompt), KeyringFault::Locked);
        assert_eq!(fault(BusError::Unavailable), KeyringFault::NoService);
    }
}
