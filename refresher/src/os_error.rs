//! Failures of the operating system in words for people: without its numbers and short forms.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

/// Returns what `error` says, as the end of a sentence.
pub fn in_words(error: &io::Error) -> String {
    let says_itself = error.get_ref().is_some();
    if says_itself {
        return error.to_string();
    }
    let words = match error.kind() {
        ErrorKind::NotFound => "there is no such file or folder",
        ErrorKind::PermissionDenied => "this user is not allowed to",
        ErrorKind::AlreadyExists => "it exists already",
        ErrorKind::IsADirectory => "it is a folder",
        ErrorKind::NotADirectory => "something on the way to it is no folder",
        ErrorKind::DirectoryNotEmpty => "the folder is not empty",
        ErrorKind::ReadOnlyFilesystem => "it is on a read-only file system",
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::QuotaExceeded => "this user's share of the disk is used up",
        ErrorKind::FileTooLarge => "the file would be too large",
        ErrorKind::InvalidFilename => "its name is too long",
        ErrorKind::ResourceBusy => "something else uses it",
        ErrorKind::AddrInUse => "something else listens there",
        ErrorKind::AddrNotAvailable => "this machine has no such address",
        ErrorKind::ConnectionRefused => "nothing listens there",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => "the connection was cut",
        ErrorKind::BrokenPipe => "nobody reads any more",
        ErrorKind::NotConnected | ErrorKind::UnexpectedEof => "the connection has ended",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "there is no way to it",
        ErrorKind::NetworkDown => "the network is down",
        ErrorKind::TimedOut => "it took too long",
        ErrorKind::OutOfMemory => "there is no memory left",
        ErrorKind::Unsupported => "this system cannot do that there",
        _ => return rare(error),
    };
    words.to_owned()
}

/// Returns what has no kind of its own, or is not expected at all.
fn rare(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::IO) => "the disk cannot be read or written".to_owned(),
        Some(Errno::LOOP) => "too many links follow each other".to_owned(),
        Some(Errno::MFILE | Errno::NFILE) => "too many files are open".to_owned(),
        _ => {
            let said = error.to_string();
            let said = said.split(" (os error").next().unwrap_or_default();
            let mut letters = said.chars();
            let first = letters.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(letters).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No failure of Linux shows its number, or begins like a sentence of its own.
    #[test]
    fn every_failure_of_the_system_is_in_words() {
        for number in 1..=133 {
            let error = io::Error::from_raw_os_error(number);
            let said = in_words(&error);
            assert!(!said.contains("os error"), "{number}: {said}");
            let capital = said.starts_with(|first: char| first.is_ascii_uppercase());
            assert!(!said.is_empty() && !capital, "{number}: {said}");
        }
        for (error, said) in [
            (Errno::NOENT, "there is no such file or folder"),
            (Errno::ACCESS, "this user is not allowed to"),
            (Errno::NOSPC, "the disk is full"),
            (Errno::MFILE, "too many files are open"),
            (Errno::NAMETOOLONG, "its name is too long"),
            (Errno::INVAL, "invalid argument"),
        ] {
            assert_eq!(in_words(&error.into()), said);
        }
    }

    #[test]
    fn our_own_words_stay_as_they_are() {
        let ours = io::Error::other("It is longer than 5 bytes");
        assert_eq!(in_words(&ours), "It is longer than 5 bytes");
    }
}
