<?php
// Serves a handler: one endless request of PHP's, in which baton's requests come
// over a socket that is this process's standard output.

/** BatonLoop calls the handler, once for each frame that comes. */
final class BatonLoop
{
    private static $handler;
    private static bool $event = false;
    private static $channel;
    /** The header block of this answer is on its way. */
    private static bool $begun = false;
    private static bool $loaded = false;
    /** A handler runs; else the file is being loaded, or nothing happens. */
    private static bool $busy = false;
    private static array $uploads = [];

    /** first calls the handler in a request of PHP's own. */
    public static function first(callable $handler): void
    {
        $body = self::wants($handler) ? (string) file_get_contents('php://input') : '';
        self::answer(self::$event ? $handler(self::event(BatonCall::$event, $body)) : $handler());
    }

    private static function wants(callable $handler): bool
    {
        self::$handler = $handler;
        $f = new ReflectionFunction(Closure::fromCallable($handler));
        return self::$event = $f->getNumberOfParameters() > 0;
    }

    /** open comes before the file is loaded. */
    public static function open(): void
    {
        BatonCall::$loops = true;
        $timeout = ini_set('default_socket_timeout', '-1');
        BatonStream::leave();
        self::$channel = fopen('php://stdout', 'r+');
        BatonStream::enter();
        ini_set('default_socket_timeout', $timeout);
        stream_set_chunk_size(self::$channel, 32768);
        while (ob_get_level() > 0) {
            ob_end_clean();
        }
        ob_start('BatonLoop::collect', 65536, PHP_OUTPUT_HANDLER_CLEANABLE | PHP_OUTPUT_HANDLER_FLUSHABLE);
    }

    /** run takes what the file has returned, and serves until baton hangs up. */
    public static function run($handler): void
    {
        if (($handler === 1 || !is_callable($handler)) && @FUNCTION@ !== '') {
            $handler = @FUNCTION@;
        }
        if ($handler === 1 || !is_callable($handler)) {
            self::log('PHP Fatal error:  the file of a handler has returned no callable when it was loaded');
            return; // end says so
        }
        self::wants($handler);
        ob_clean();
        header_remove();
        self::$loaded = true;
        self::send(self::$event ? 'V' : 'L', '');
        while (self::request()) {
        }
    }

    private static function request(): bool
    {
        $head = self::read(12);
        if ($head === null) {
            return false;
        }
        ['v' => $vars, 'b' => $size, 'm' => $more] = unpack('Vv/Vb/Vm', $head);
        $_SERVER = unserialize((string) self::read($vars), ['allowed_classes' => false]);
        $body = $size > 0 ? (string) self::read($size) : '';
        while ($more > 0) {
            [1 => $more] = unpack('V', (string) self::read(4));
            $body .= $more > 0 ? self::read($more) : '';
        }
        $event = $_SERVER['@EVENT@'] ?? null;
        unset($_SERVER['@EVENT@']);
        $_SERVER['REQUEST_TIME_FLOAT'] = microtime(true);
        $_SERVER['REQUEST_TIME'] = (int) $_SERVER['REQUEST_TIME_FLOAT'];
        $_GET = $_POST = $_COOKIE = $_FILES = [];
        if (($_SERVER['QUERY_STRING'] ?? '') !== '') {
            parse_str($_SERVER['QUERY_STRING'], $_GET);
        }
        if (isset($_SERVER['HTTP_COOKIE'])) {
            self::cookies($_SERVER['HTTP_COOKIE']);
        }
        if ($body !== '' && $_SERVER['REQUEST_METHOD'] === 'POST' && isset($_SERVER['CONTENT_TYPE'])) {
            self::form($_SERVER['CONTENT_TYPE'], $body);
        }
        $_REQUEST = $_POST + $_GET;
        BatonStream::$body = $body;
        http_response_code(200);
        self::$begun = false;
        self::$busy = true;
        $kind = 'E';
        try {
            self::answer(self::$event ? (self::$handler)(self::event($event, $body)) : (self::$handler)());
        } catch (Throwable $t) {
            $kind = 'T';
            self::log('PHP Fatal error:  Uncaught ' . $t . "\n  thrown in " . $t->getFile() . ' on line ' . $t->getLine());
        }
        self::finish($kind);
        return true;
    }

    /** finish sends what is left of the answer, and leaves nothing of it here. */
    private static function finish(string $kind): void
    {
        while (ob_get_level() > 1) {
            ob_end_flush();
        }
        $rest = (string) ob_get_contents();
        ob_clean();
        self::send($kind, self::head() . $rest);
        self::$busy = false;
        BatonStream::$body = null;
        header_remove();
        foreach (self::$uploads as $name) {
            @unlink($name);
        }
        self::$uploads = [];
    }

    /** end is the end of this process: exit, or an error that ends it. */
    public static function end(string $kind): void
    {
        if (self::$busy) {
            self::finish($kind === '' ? 'X' : $kind);
        } elseif (!self::$loaded) {
            self::send('F', '');
        }
    }

    /** collect takes what the handler writes once that is much, or flushed. */
    public static function collect(string $text, int $phase): string
    {
        if (self::$busy && !($phase & PHP_OUTPUT_HANDLER_CLEAN) && $text !== '') {
            self::send('D', self::head() . $text);
        }
        return '';
    }

    /** head is the header block, once for each answer. */
    private static function head(): string
    {
        if (self::$begun) {
            return '';
        }
        self::$begun = true;
        $code = http_response_code();
        $head = is_int($code) && $code !== 200 ? "Status: $code\r\n" : '';
        foreach (headers_list() as $line) {
            $head .= $line . "\r\n";
        }
        return $head . "\r\n";
    }

    /** answer writes what a handler has returned, beside what it has written. */
    private static function answer($r): void
    {
        if ($r === null || $r === true) {
            return;
        }
        if (is_array($r) && isset($r['statusCode'])) {
            http_response_code((int) $r['statusCode']);
            foreach ($r['headers'] ?? [] as $name => $values) {
                foreach ((array) $values as $i => $value) {
                    header("$name: $value", $i === 0);
                }
            }
            foreach ($r['cookies'] ?? [] as $cookie) {
                header("Set-Cookie: $cookie", false);
            }
            $body = $r['body'] ?? '';
            if (is_string($body)) {
                echo empty($r['isBase64Encoded']) ? $body : base64_decode($body);
                return;
            }
            $r = $body;
        }
        echo is_string($r) || $r instanceof Stringable ? $r : json_encode($r, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
    }

    /** event is the request as baton tells it, with its body. */
    private static function event(?string $event, string $body): array
    {
        $event = json_decode((string) $event, true);
        $text = preg_match('~~u', $body) === 1;
        $event['body'] = $text ? $body : base64_encode($body);
        $event['isBase64Encoded'] = !$text;
        return $event;
    }

    private static function cookies(string $line): void
    {
        foreach (explode(';', $line) as $pair) {
            [$name, $value] = explode('=', ltrim($pair), 2) + [1 => ''];
            parse_str(urlencode(rawurldecode($name)) . '=' . strtr($value, ['&' => '%26']), $one);
            $_COOKIE += $one;
        }
    }

    private static function form(string $type, string $body): void
    {
        if (stripos($type, 'application/x-www-form-urlencoded') === 0) {
            parse_str($body, $_POST);
        } elseif (stripos($type, 'multipart/form-data') === 0 && preg_match('~boundary=(?:"([^"]+)"|([^;,\s]+))~i', $type, $m)) {
            self::parts($m[2] ?? $m[1], $body);
        }
    }

    private static function parts(string $boundary, string $body): void
    {
        $query = [];
        foreach (array_slice(explode("\r\n--$boundary", "\r\n" . $body), 1) as $part) {
            if (!str_starts_with($part, "\r\n")) {
                break; // the last one
            }
            [$head, $content] = explode("\r\n\r\n", $part, 2) + [1 => ''];
            if (!preg_match('~[;\s]name="([^"]*)"~i', $head, $name)) {
                continue;
            }
            if (!preg_match('~[;\s]filename="([^"]*)"~i', $head, $file)) {
                $query[] = urlencode($name[1]) . '=' . urlencode($content);
                continue;
            }
            $type = preg_match('~^content-type:\s*(\S.*?)\s*$~im', $head, $m) ? $m[1] : '';
            self::upload($name[1], $file[1], $type, $content);
        }
        parse_str(implode('&', $query), $_POST);
    }

    private static function upload(string $field, string $file, string $type, string $content): void
    {
        $one = ['name' => basename(strtr($file, '\\', '/')), 'full_path' => $file, 'type' => $type, 'tmp_name' => '', 'error' => UPLOAD_ERR_NO_FILE, 'size' => 0];
        if ($file !== '') {
            $name = tempnam(sys_get_temp_dir(), 'php');
            $written = $name !== false && file_put_contents($name, $content) === strlen($content);
            self::$uploads[] = $name;
            $one = ['tmp_name' => $name, 'error' => $written ? UPLOAD_ERR_OK : UPLOAD_ERR_CANT_WRITE, 'size' => strlen($content)] + $one;
        }
        if (!str_ends_with($field, '[]')) {
            $_FILES[$field] = $one;
            return;
        }
        foreach ($one as $key => $value) {
            $_FILES[substr($field, 0, -2)][$key][] = $value;
        }
    }

    /** read returns just so many bytes; null when baton has hung up before. */
    private static function read(int $n): ?string
    {
        $text = '';
        while (($left = $n - strlen($text)) > 0) {
            $piece = fread(self::$channel, $left);
            if ($piece === '' || $piece === false) {
                return null;
            }
            $text .= $piece;
        }
        return $text;
    }

    private static function send(string $kind, string $text): void
    {
        $text = $kind . pack('V', strlen($text)) . $text;
        for ($at = 0; $at < strlen($text); $at += $n) {
            $n = fwrite(self::$channel, $at === 0 ? $text : substr($text, $at));
            if (!$n) {
                exit(1); // baton is gone
            }
        }
    }

    private static function log(string $text): void
    {
        ini_set('error_log', '');
        error_log($text);
        ini_restore('error_log');
    }
}

if (!BatonCall::$runs) {
    class_exists('BatonStream', false) || require __DIR__ . '/stream.php';
    chdir(@DIR@);
    BatonLoop::open();
    BatonLoop::run(include @ENTRY@);
}
