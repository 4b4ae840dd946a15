<?php

/**
 * BatonStream has php://stdin read the request's body, and php://stdout write
 * the response, as for a script on the command line. All else of php:// is
 * PHP's own.
 */
final class BatonStream
{
    public $context;
    private $inner;

    /** The body, in loop.php; null: it is php://input. */
    public static ?string $body = null;

    public static function enter(): void
    {
        stream_wrapper_unregister('php');
        stream_wrapper_register('php', self::class);
    }

    public static function leave(): void
    {
        stream_wrapper_restore('php');
    }

    public function stream_open(string $path, string $mode, int $options, ?string &$opened): bool
    {
        self::leave();
        try {
            if (self::$body !== null && preg_match('~^php://(stdin|input)$~i', $path)) {
                $this->inner = fopen('php://memory', 'w+');
                fwrite($this->inner, self::$body);
                rewind($this->inner);
                return true;
            }
            $path = preg_replace(['~php://stdin~i', '~php://stdout~i'], ['php://input', 'php://output'], $path);
            $this->inner = $this->context ? fopen($path, $mode, false, $this->context) : fopen($path, $mode);
            return $this->inner !== false;
        } finally {
            self::enter();
        }
    }

    public function stream_read(int $count) { return fread($this->inner, $count); }
    public function stream_write(string $data) { return fwrite($this->inner, $data); }
    public function stream_eof(): bool { return feof($this->inner); }
    public function stream_tell() { return ftell($this->inner); }
    public function stream_seek(int $offset, int $whence): bool { return fseek($this->inner, $offset, $whence) === 0; }
    public function stream_stat() { return fstat($this->inner); }
    public function stream_flush(): bool { return fflush($this->inner); }
    public function stream_truncate(int $size): bool { return ftruncate($this->inner, $size); }
    public function stream_lock(int $operation): bool { return false; }
    public function stream_cast(int $as) { return $this->inner; }
    public function stream_close(): void { fclose($this->inner); }

    public function stream_set_option(int $option, int $one, ?int $two): bool
    {
        return match ($option) {
            STREAM_OPTION_BLOCKING => stream_set_blocking($this->inner, (bool) $one),
            STREAM_OPTION_READ_TIMEOUT => stream_set_timeout($this->inner, $one, (int) $two),
            default => false,
        };
    }
}

BatonStream::enter();
