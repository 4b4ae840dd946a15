<?php
// hello as a handler: this file runs once, the function it returns for each request.
return function () {
    header('Content-Type: application/json');
    echo json_encode(['token' => $_GET['t'] ?? '']), "\n";
};
