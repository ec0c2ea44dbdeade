//! `kinfold serve`: the daemon in the foreground.

use std::ffi::OsString;
use std::fs::File;

use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::logging;
use crate::cli::logging::LogArgs;
use crate::cli::unlock;
use crate::cli::unlock::KeyArgs;
use crate::daemon;
use crate::daemon::Ended;
use crate::daemon::ServeOptions;
use crate::keys::identity::Identity;

/// Arguments of `kinfold serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    log: LogArgs,

    #[command(flatten)]
    key: KeyArgs,

    /// Do not run unless the kernel can confine the daemon wholly
    #[arg(long)]
    require_sandbox: bool,

    /// Be the daemon itself, under the keeper with this process id
    #[arg(long, hide = true, value_name = "PID")]
    kept_by: Option<i32>,

    /// Be the keeper of the daemon with this process id
    #[arg(long, hide = true, value_name = "PID")]
    keeper_of: Option<i32>,

    /// Be the lookout of the daemon with this process id
    #[arg(long, hide = true, value_name = "PID")]
    lookout_of: Option<i32>,
}

/// Runs the command.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    if let Some(parent) = args.lookout_of {
        // It needs to know nothing of this device.
        daemon::look_out(parent)?;
        return Ok(Exit::Done);
    }
    context.config()?;
    let as_lookout: Vec<OsString> = ["serve", "--lookout-of"].map(OsString::from).into();
    if let Some(keeper) = args.kept_by {
        let log = logging::start(&args.log, "info")?;
        let options = ServeOptions { log, require_sandbox: args.require_sandbox, as_lookout };
        return match daemon::serve_for(keeper, context.paths.clone(), options)? {
            Ended::ForGood => Ok(Exit::Done),
            Ended::ToBeginAgain => Ok(Exit::Again),
        };
    }
    let require = args.require_sandbox.then_some("--require-sandbox");
    let given: Vec<OsString> = args.log.as_given("info").into_iter().chain(require.map(OsString::from)).collect();
    if let Some(parent) = args.keeper_of {
        daemon::stand_by(&context.paths, parent, &inner(context, given, "--kept-by"))?;
        return Ok(Exit::Done);
    }
    // What can be refused without a passphrase is, before anybody is asked for it.
    unlock::found(&context.paths)?;
    let log = logging::start(&args.log, "info")?;
    let options = ServeOptions { log, require_sandbox: args.require_sandbox, as_lookout };
    let open = || unlock::identity(&context.paths, &args.key);
    ended(daemon::serve_kept(&context.paths, options, &inner(context, given, "--keeper-of"), open)?)
}

/// The arguments that make this program one of its own inner processes.
fn inner(context: &Context, args: impl IntoIterator<Item = OsString>, role: &str) -> Vec<OsString> {
    let home = context.home.iter().flat_map(|home| ["--home".into(), home.clone().into_os_string()]);
    home.chain(["serve".into()]).chain(args).chain([role.into()]).collect()
}

/// Has a daemon of this device run, as a process of its own, until it ends. It logs to `log`, or where this process
/// says what goes wrong.
pub fn keep(
    context: &Context,
    identity: Identity,
    args: impl IntoIterator<Item = OsString>,
    log: Option<&File>,
) -> Result<Exit, Failure> {
    ended(daemon::keep(&context.paths, identity, &inner(context, args, "--kept-by"), log)?)
}

fn ended(code: u8) -> Result<Exit, Failure> {
    match code {
        0 => Ok(Exit::Done),
        // It has said why.
        code => Err(Failure::said_already(if code == Exit::Usage as u8 { Exit::Usage } else { Exit::Failed })),
    }
}
