<?php
// The first request of a process: it compiles the script, and runs nothing of it.
if (function_exists('opcache_compile_file')) {
    @opcache_compile_file(@ENTRY@);
}
