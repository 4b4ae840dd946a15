<?php
// Runs before every script. What is between @ is put in by source.go.

/** BatonCall is what baton must know of a script's end. */
final class BatonCall
{
    /** What a script returns, in run.php, and the event for it. */
    public static $result;
    public static ?string $event = null;
    /** The script was begun by run.php and has not come to its end. */
    public static bool $runs = false;
    /** loop.php serves. */
    public static bool $loops = false;

    /** The errors that end a script. */
    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

    /** end is the first of the shutdown functions. */
    public static function end(): void
    {
        $error = error_get_last();
        $kind = '';
        if ($error !== null && ($error['type'] & self::FATAL)) {
            ini_set('memory_limit', '-1');
            $kind = str_starts_with($error['message'], 'Allowed memory size') || str_starts_with($error['message'], 'Out of memory') ? 'M' : 'F';
        } elseif (self::$runs) {
            $kind = 'X';
        }
        if (self::$loops) {
            BatonLoop::end($kind);
        } elseif ($kind !== '') {
            self::mark($kind);
        }
    }

    /** mark tells baton how the script has ended, or what it is. */
    public static function mark(string $kind): void
    {
        if (class_exists('BatonStream', false)) {
            BatonStream::leave();
        }
        $side = fopen('php://stdout', 'w');
        fwrite($side, @MARK@ . $kind);
        fclose($side);
        if (class_exists('BatonStream', false)) {
            BatonStream::enter();
        }
    }
}

register_shutdown_function('BatonCall::end');
