<?php
// Runs a script of which it is not known whether it returns a handler, or whose
// exit codes matter.
chdir(@DIR@);
$_SERVER['SCRIPT_FILENAME'] = @ENTRY@;
BatonCall::$event = $_SERVER['@EVENT@'] ?? null;
unset($_SERVER['@EVENT@']);
BatonCall::$runs = true;
@SHEBANG@
BatonCall::$result = include @ENTRY@;
if (BatonCall::$result === 1 && @FUNCTION@ !== '') {
    BatonCall::$result = @FUNCTION@;
}
if (BatonCall::$result !== 1 && is_callable(BatonCall::$result)) {
    // Once: from now on baton has it loaded before it is called.
    require_once __DIR__ . '/loop.php';
    BatonCall::mark('H');
    BatonLoop::first(BatonCall::$result);
}
BatonCall::$runs = false;
