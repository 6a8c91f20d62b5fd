/** Variables that a login, a shell, a terminal or a package runner sets: about a session, not about the service. */

const names = new Set(
  'PATH HOME PWD OLDPWD SHLVL _ TERM TERM_PROGRAM COLORTERM USER LOGNAME SHELL HOSTNAME MAIL DISPLAY EDITOR PAGER LS_COLORS LESSOPEN LESSCLOSE INIT_CWD NODE COLOR INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MEMORY_PRESSURE_WATCH MEMORY_PRESSURE_WRITE NOTIFY_SOCKET DEBIAN_FRONTEND WINDOWID'.split(
    ' ',
  ),
);
const beginnings = /^(SSH_|XDG_|DBUS_|npm_|SUDO_|TMUX|VSCODE_|LC_|GPG_|NVM_)/;

export function isSessionVariable(name: string): boolean {
  return names.has(name) || beginnings.test(name);
}
