//! The way in that suits the machine on which a login is started. Pure.

use crate::platform::Flow;

/// The facts that decide which way suits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Somebody works on it from another one (SSH).
    pub is_remote: bool,
    /// A browser can be opened on it, or its person opens one.
    pub has_browser: bool,
    /// A person sits at the command's input.
    pub is_attended: bool,
}

/// A way in that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// In a browser that comes back to this port of this machine.
    Port(u16),
    /// In a browser on any machine, whose last address is pasted.
    Paste,
    /// By a code that is typed in at the platform.
    Code,
    /// By a client of the account's own, which has this id.
    Client(&'a str),
    /// At the platform's own page, in a browser that is opened for it.
    Session,
}

impl Way<'_> {
    fn is(self, flow: &Flow) -> bool {
        match self {
            Way::Port(_) => matches!(flow, Flow::Code(_)),
            Way::Paste => matches!(flow, Flow::Pasted(_)),
            Way::Code => matches!(flow, Flow::Device(_)),
            Way::Client(_) => matches!(flow, Flow::Client),
            Way::Session => matches!(flow, Flow::Session(_)),
        }
    }
}

/// A way in, and the reason where it is another one than the profile's first.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The way.
    pub flow: &'a Flow,
    /// The reason why it is not the first.
    pub why: Option<&'static str>,
}

impl Machine {
    /// The machine that the environment tells of. `has` says if a variable is set.
    pub fn of(has: impl Fn(&str) -> bool, opens_windows: bool, is_attended: bool) -> Machine {
        let is_remote = has("SSH_CONNECTION") || has("SSH_TTY");
        Machine {
            is_remote,
            // A display of X11's may be another machine's, which then shows the browser of this one.
            has_browser: has("DISPLAY") || has("WAYLAND_DISPLAY") || opens_windows && !is_remote,
            is_attended,
        }
    }

    /// Finds the way that was `asked` for, else the one that suits the machine; none where a profile has none of that.
    pub fn choose<'a>(self, flows: &'a [Flow], asked: Option<Way<'_>>) -> Option<Choice<'a>> {
        match asked {
            Some(way) => {
                let flow = flows.iter().find(|flow| way.is(flow))?;
                Some(Choice { flow, why: None })
            }
            None => self.suiting(flows),
        }
    }

    /// The best of a profile's ways, the most comfortable of which comes first.
    fn suiting(self, flows: &[Flow]) -> Option<Choice<'_>> {
        let first = flows.first()?;
        if self.has_browser || !needs_browser(first) {
            return Some(Choice {
                flow: first,
                why: None,
            });
        }
        let suits = |flow: &&Flow| match flow {
            Flow::Device(_) => true,
            Flow::Pasted(_) => self.is_attended,
            _ => false,
        };
        Some(match flows.iter().find(suits) {
            Some(flow) => Choice {
                flow,
                why: Some(match self.is_remote {
                    true => "you are here by SSH, where no browser can be opened",
                    false => "this machine has no display for a browser",
                }),
            },
            // Whoever prints the URL may open it for us.
            None => Choice {
                flow: first,
                why: None,
            },
        })
    }
}

/// True for a way that ends on this machine, in its browser.
fn needs_browser(flow: &Flow) -> bool {
    matches!(flow, Flow::Code(_) | Flow::Session(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Profile, example};

    const DESK: Machine = Machine {
        is_remote: false,
        has_browser: true,
        is_attended: true,
    };

    /// The profile of Codex, with a device code or without.
    fn profile(with_device: bool) -> Profile {
        let mut profile = example();
        let is_kept = |flow: &Flow| with_device || !matches!(flow, Flow::Device(_));
        profile.login.flows.retain(is_kept);
        profile
    }

    fn chosen(machine: Machine, profile: &Profile) -> (&'static str, bool) {
        let Choice { flow, why } = machine.choose(&profile.login.flows, None).unwrap();
        let name = match flow {
            Flow::Code(_) => "code",
            Flow::Device(_) => "device",
            Flow::Pasted(_) => "pasted",
            _ => "another",
        };
        (name, why.is_some())
    }

    #[test]
    fn a_browser_here_goes_before_a_code_and_that_before_pasting() {
        let server = Machine {
            is_remote: true,
            has_browser: false,
            is_attended: true,
        };
        let script = Machine {
            is_attended: false,
            ..server
        };
        for (machine, with_device, expected) in [
            (DESK, true, ("code", false)),
            (DESK, false, ("code", false)),
            (server, true, ("device", true)),
            (server, false, ("pasted", true)),
            (script, true, ("device", true)),
            // Nobody could paste.
            (script, false, ("code", false)),
        ] {
            assert_eq!(
                chosen(machine, &profile(with_device)),
                expected,
                "{machine:?}"
            );
        }
        let why = |machine: Machine| {
            machine
                .choose(&profile(true).login.flows, None)
                .unwrap()
                .why
        };
        assert!(why(server).unwrap().contains("SSH"));
        let container = Machine {
            is_remote: false,
            ..server
        };
        assert!(why(container).unwrap().contains("display"));
        assert!(DESK.choose(&[], None).is_none());
        // A way without a browser is as good anywhere.
        let client = [Flow::Client];
        assert!(matches!(
            script.choose(&client, None).unwrap().flow,
            Flow::Client
        ));
    }

    #[test]
    fn the_way_that_is_asked_for_goes_before_the_one_that_suits() {
        let profile = profile(true);
        let flows = &profile.login.flows;
        let asked = |way| DESK.choose(flows, Some(way)).map(|choice| choice.flow);
        assert!(matches!(asked(Way::Port(1)), Some(Flow::Code(_))));
        assert!(matches!(asked(Way::Paste), Some(Flow::Pasted(_))));
        assert!(matches!(asked(Way::Code), Some(Flow::Device(_))));
        assert!(asked(Way::Client("id")).is_none());
        assert!(asked(Way::Session).is_none());
    }

    #[test]
    fn the_environment_tells_what_a_machine_is() {
        let machine = |set: &'static [&str], opens_windows| {
            Machine::of(|name| set.contains(&name), opens_windows, true)
        };
        for (set, opens_windows, is_remote, has_browser) in [
            (&[][..], false, false, false),
            (&["DISPLAY"], false, false, true),
            (&["WAYLAND_DISPLAY"], false, false, true),
            (&["SSH_CONNECTION"], false, true, false),
            // X11 is forwarded.
            (&["SSH_TTY", "DISPLAY"], false, true, true),
            // A Mac, and a Mac by SSH.
            (&[], true, false, true),
            (&["SSH_CONNECTION"], true, true, false),
        ] {
            let found = machine(set, opens_windows);
            assert_eq!(
                (found.is_remote, found.has_browser),
                (is_remote, has_browser),
                "{set:?}"
            );
        }
    }
}
