<?php
function money(float $amount, string $currency): string
{
    return number_format($amount, 2) . ' ' . $currency;
}
