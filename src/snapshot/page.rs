//! Pages, in which records travel from the refresher to Envoy: lines with a checksum.
//!
//! The first line is the SHA-256, in hex, of every byte after it; the second is the
//! [`PageHeader`]; each further one is a record.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FORMAT, Record, unread::Unread};
use crate::hex;

/// The most record bytes that a writer puts on a page, line ends included. A reader takes any.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024 + 1;

/// Names one history of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch([u8; 16]);

/// The second line of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageHeader {
    /// [`FORMAT`].
    pub format: u32,
    /// The history that the revisions belong to.
    pub epoch: Epoch,
    /// Forget everything held: this page starts anew.
    pub reset: bool,
    /// The revision that the page builds on.
    pub from: u64,
    /// The revision after it.
    pub to: u64,
    /// True where there is another page at once.
    pub more: bool,
    /// The number of records that follow.
    pub records: usize,
}

/// A page whose checksum and count hold. Its records are not parsed yet.
#[derive(Debug)]
pub struct Page<'a> {
    /// The second line.
    pub header: PageHeader,
    body: &'a [u8],
}

/// The reason why bytes are not a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPage {
    /// The page header is not where it should be.
    Header,
    /// Another format than [`FORMAT`]; the refresher is newer or older than this filter.
    Format(u32),
    /// The checksum does not hold.
    Checksum,
    /// Another number of records than the header says.
    Count,
    /// `to` is before `from`.
    Order,
}

// === impl Epoch ===

impl Epoch {
    /// The epoch of these bytes, which are random where the store is made.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl TryFrom<String> for Epoch {
    type Error = InvalidPage;

    fn try_from(text: String) -> Result<Self, InvalidPage> {
        hex::decode(text.as_bytes())
            .map(Self)
            .ok_or(InvalidPage::Header)
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        hex::encode(&epoch.0)
    }
}

// === impl PageHeader ===

impl PageHeader {
    /// Writes the page that `lines` make.
    pub fn encode<'a>(
        epoch: Epoch,
        reset: bool,
        (from, to): (u64, u64),
        more: bool,
        lines: impl IntoIterator<Item = &'a str>,
    ) -> Vec<u8> {
        let mut records = Vec::new();
        let mut count = 0_usize;
        for line in lines {
            records.extend_from_slice(line.as_bytes());
            records.push(b'\n');
            count = count.saturating_add(1);
        }
        let header = Self {
            format: FORMAT,
            epoch,
            reset,
            from,
            to,
            more,
            records: count,
        };
        // A struct of numbers, booleans and hex always serialises.
        let mut body = serde_json::to_vec(&header).unwrap_or_default();
        body.push(b'\n');
        body.extend_from_slice(&records);
        let mut page = hex::encode(&Sha256::digest(&body)).into_bytes();
        page.push(b'\n');
        page.extend_from_slice(&body);
        page
    }
}

// === impl Page ===

impl<'a> Page<'a> {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// [`InvalidPage`], before anything of the page can be used.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidPage> {
        let (checksum, body) = split_line(bytes).ok_or(InvalidPage::Checksum)?;
        if hex::decode(checksum) != Some(Sha256::digest(body).into()) {
            return Err(InvalidPage::Checksum);
        }
        let (header, body) = split_line(body).ok_or(InvalidPage::Header)?;
        let header: PageHeader = serde_json::from_slice(header).map_err(|_| InvalidPage::Header)?;
        if header.format != FORMAT {
            return Err(InvalidPage::Format(header.format));
        }
        if header.to < header.from {
            return Err(InvalidPage::Order);
        }
        let page = Self { header, body };
        if page.lines().count() != page.header.records {
            return Err(InvalidPage::Count);
        }
        Ok(page)
    }

    /// Lists each line and the record that it is, in order of revision.
    pub fn records(&self) -> impl Iterator<Item = (Result<Record, Unread>, &'a [u8])> + use<'a> {
        let read = |line| Record::from_line(line).map_err(|error| Unread::of(line, error));
        self.lines().map(move |line| (read(line), line))
    }

    /// The record lines, in order of revision.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        lines(self.body)
    }
}

/// The first line, without its end, and what follows it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line, rest.get(1..)?))
}

/// The non-empty lines of `bytes`.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
}

// === impl InvalidPage ===

impl InvalidPage {
    /// The reason in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Format(_) => "format",
            Self::Checksum => "checksum",
            Self::Count => "count",
            Self::Order => "order",
        }
    }
}

impl std::fmt::Display for InvalidPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("expected a page header as the second line"),
            Self::Format(found) => write!(
                f,
                "expected snapshot format {FORMAT}, found {found}: run a filter and a refresher of one release"
            ),
            Self::Checksum => f.write_str("the page's checksum does not hold"),
            Self::Count => f.write_str("the page's record count does not hold"),
            Self::Order => f.write_str("the page ends at a revision before its start"),
        }
    }
}

impl std::error::Error for InvalidPage {}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode() -> Vec<u8> {
        let epoch = Epoch::from_bytes([7; 16]);
        PageHeader::encode(epoch, true, (0, 5), false, ["{\"a\":1}", "{\"b\":2}"])
    }

    #[test]
    fn a_page_survives_the_wire() {
        let bytes = encode();
        let page = Page::parse(&bytes).unwrap();
        assert_eq!(page.header.to, 5);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines, [b"{\"a\":1}", b"{\"b\":2}"]);
    }

    #[test]
    fn no_flipped_byte_passes() {
        let bytes = encode();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Page::parse(&bad).unwrap_err(), InvalidPage::Checksum);
        }
    }

    #[test]
    fn no_truncation_passes() {
        let bytes = encode();
        for length in 0..bytes.len() {
            assert!(Page::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let text = String::from_utf8(encode()).unwrap();
        let body = text.split_once('\n').unwrap().1;
        let newer = body.replace("\"format\":2", "\"format\":3");
        let page = format!("{}\n{newer}", hex::encode(&Sha256::digest(&newer)));
        assert_eq!(
            Page::parse(page.as_bytes()).unwrap_err(),
            InvalidPage::Format(3)
        );
    }
}
